"""Outputs against NumPy equations, maps against autograd, shares that add up, the host head against a full pass."""

import numpy as np
import pytest
import torch

from melanoma_infer.bundle.head import TENSORS, Head
from melanoma_infer.card import ModelCard, NetworkShape, Outcome, PatientField
from melanoma_infer.errors import BundleError
from melanoma_infer.model.melanoma_net import LogOdds, MelanomaNet, head_tensors, log_odds

WIDTH = 1
TILE_PX = 256
FIELDS = (PatientField(name="sex", values=("female", "male")), PatientField(name="age", values=("a", "b", "c")))


def card(classes=4, malignant=(2, 3), outcome=(3,), fields=FIELDS, **changes):
    names = tuple(f"class{k}" for k in range(classes))
    return ModelCard(
        name="test",
        classes=names,
        malignant=tuple(names[k] for k in malignant),
        outcome=Outcome(name="outcome", classes=tuple(names[k] for k in outcome)) if outcome else None,
        patient_fields=fields,
        outputs=("depth_mm", "attention", "cam", "features"),
        tile_um=3000,
        resize="reduce-bilinear",
        **{
            "tile_px": TILE_PX,
            "mean": (0.5, 0.4, 0.3),
            "std": (0.2, 0.3, 0.4),
            "network": NetworkShape(width=WIDTH),
            **changes,
        },
    )


CARDS = {
    "shipped roles": card(),
    "two classes, no patient, no outcome": card(classes=2, malignant=(1,), outcome=(), fields=()),
    "malignant in the middle": card(classes=5, malignant=(1, 3), outcome=(1,)),
    "malignant first": card(classes=3, malignant=(0,), outcome=()),
}


@pytest.fixture(params=CARDS.values(), ids=list(CARDS))
def net(request):
    return random_net(request.param)


def random_net(of_card):
    """A network in float64 whose biases are not zero, so that omitting one changes the outputs."""
    torch.manual_seed(7)
    net = MelanomaNet.from_card(of_card).double().eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.dim() == 1 and not name.startswith("backbone"):
                parameter.normal_(std=0.3)
    return net


def tail_inputs(net, tiles=3):
    rng = np.random.default_rng(4)
    x = np.maximum(rng.normal(size=(tiles, net.backbone.channels_out, 5, 7)), 0) * 2
    return torch.from_numpy(x), torch.from_numpy(rng.uniform(0.1, 5, size=tiles))


def drawn(tiles, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (tiles, TILE_PX, TILE_PX, 3), dtype=np.uint8))


def unknown_patient(of_card):
    return patient_vector(of_card, *(len(field.values) for field in of_card.patient_fields))


def patient_vector(of_card, *values):
    vector = np.zeros(of_card.patient_columns)
    start = 0
    for field, value in zip(of_card.patient_fields, values, strict=True):
        vector[start + value] = 1
        start += field.columns
    return vector


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def lse(z, columns):
    return torch.logsumexp(z[:, list(columns)], dim=1)


def weights_of(net):
    return {name: getattr(net, name).detach().numpy() for name in ("w1_image", *TENSORS)}


def attended(net, x):
    with torch.no_grad():
        return net.attention(x).attended.numpy()


def test_probabilities_are_eq_1_to_4_extended_to_128_and_64_neurons(net):
    x, depth_mm = tail_inputs(net)
    w = weights_of(net)
    joined = np.concatenate(
        (
            attended(net, x).mean((2, 3)),
            depth_mm.numpy()[:, None],
            np.tile(unknown_patient(net.card), (len(x), 1)),
        ),
        axis=1,
    )
    w1 = np.concatenate((w["w1_image"], w["w1_depth"][:, None], w["w1_patient"]), axis=1)
    first = np.maximum(joined @ w1.T + w["b1"], 0)
    second = np.maximum(first @ w["w2"].T + w["b2"], 0)
    assert (first.shape[1], second.shape[1]) == (128, 64)
    expected = softmax(second @ w["w3"].T + w["b3"])
    with torch.no_grad():
        np.testing.assert_allclose(net.tail(x, depth_mm).probabilities.numpy(), expected, rtol=0, atol=1e-12)


def test_with_an_identity_as_middle_layer_it_is_eq_4_as_printed():
    """Output = softmax(W2 · ReLU(W1·x + b1) + b2): a second ReLU changes nothing."""
    net = random_net(card())
    with torch.no_grad():
        net.w2.copy_(torch.eye(64, 128))
        net.b2.zero_()
    x, depth_mm = tail_inputs(net)
    w = weights_of(net)
    joined = np.concatenate((attended(net, x).mean((2, 3)), depth_mm.numpy()[:, None]), axis=1)
    w1 = np.concatenate((w["w1_image"], w["w1_depth"][:, None]), axis=1)[:64]
    b1 = (w["b1"] + w["w1_patient"] @ unknown_patient(net.card))[:64]
    printed = softmax(np.maximum(joined @ w1.T + b1, 0) @ w["w3"].T + w["b3"])
    with torch.no_grad():
        np.testing.assert_allclose(net.tail(x, depth_mm).probabilities.numpy(), printed, rtol=0, atol=1e-12)


def test_features_are_the_images_and_the_depths_share_of_the_first_layer(net):
    x, depth_mm = tail_inputs(net)
    w = weights_of(net)
    expected = attended(net, x).mean((2, 3)) @ w["w1_image"].T + np.outer(depth_mm.numpy(), w["w1_depth"])
    with torch.no_grad():
        np.testing.assert_allclose(net.tail(x, depth_mm).features.numpy(), expected, rtol=0, atol=1e-12)


def test_the_projected_form_equals_the_full_pass_for_an_unknown_patient():
    net = random_net(card())
    tiles = drawn(2)
    with torch.no_grad():
        outputs = net(tiles)
        patient = torch.from_numpy(np.tile(unknown_patient(net.card), (2, 1)))
        torch.testing.assert_close(outputs.probabilities, net.full_forward(tiles, patient), rtol=0, atol=1e-12)
        torch.testing.assert_close(outputs.depth_mm, net.depth(net.normalised(tiles)), rtol=0, atol=0)


@pytest.mark.parametrize("values", [(0, 0), (1, 2), (2, 1), (2, 3)])
@pytest.mark.parametrize("measured_mm", [None, 0.0, 3.7])
def test_the_hosts_head_equals_a_full_pass_with_other_patient_data_and_another_depth(values, measured_mm):
    net = random_net(card())
    tiles = drawn(2)
    patient = patient_vector(net.card, *values)
    head = Head.from_tensors({name: weights_of(net)[name] for name in TENSORS})
    with torch.no_grad():
        outputs = net(tiles)
        depth_mm = None if measured_mm is None else torch.full((2,), measured_mm, dtype=torch.float64)
        expected = net.full_forward(tiles, torch.from_numpy(np.tile(patient, (2, 1))), depth_mm).numpy()
    features = outputs.features.numpy()
    if measured_mm is not None:
        features = head.with_depth(features, outputs.depth_mm.numpy(), measured_mm)
    np.testing.assert_allclose(head.probabilities(features, patient), expected, rtol=0, atol=1e-12)
    unknown = head.probabilities(outputs.features.numpy(), unknown_patient(net.card))
    np.testing.assert_allclose(unknown, outputs.probabilities.numpy(), rtol=0, atol=1e-12)


def head_from_map(net, attended_map, depth_mm):
    """Logits by Eq. 4 from the attended map, for autograd."""
    offset = net.b1 + net.w1_patient @ net.unknown
    first = (attended_map.mean((2, 3)) @ net.w1_image.T + depth_mm[:, None] * net.w1_depth + offset).relu()
    return (first @ net.w2.T + net.b2).relu() @ net.w3.T + net.b3


def test_the_maps_equal_those_from_autograd(net):
    """Grad-CAM at the attended map before its ReLU, at each position: Σ_c x'·∂L/∂x'."""
    x, depth_mm = tail_inputs(net)
    attended_map = net.attention(x).attended.detach().requires_grad_()
    for row, odds in enumerate(log_odds(net.card)):
        logits = head_from_map(net, attended_map, depth_mm)
        value = lse(logits, odds.favoured) - lse(logits, odds.others)
        (gradient,) = torch.autograd.grad(value.sum(), attended_map)
        expected = (gradient * attended_map).sum(1).detach()
        with torch.no_grad():
            torch.testing.assert_close(net.tail(x, depth_mm).cam[:, row], expected, rtol=0, atol=1e-12)


def test_the_shares_of_image_depth_patient_and_bias_add_up_to_the_log_odds(net):
    """A group's log-sum-exp is its mean logit plus its entropy; the entropies are counted with the biases."""
    x, depth_mm = tail_inputs(net)
    with torch.no_grad():
        outputs = net.tail(x, depth_mm)
        of_patient = net.w1_patient @ net.unknown
        first = (outputs.features + net.b1 + of_patient).relu()
        second = (first @ net.w2.T + net.b2).relu()
        logits = second @ net.w3.T + net.b3
        for row, odds in enumerate(log_odds(net.card)):
            slope = torch.zeros_like(logits)
            entropy = torch.zeros(len(x), dtype=torch.float64)
            for sign, group in ((1, odds.favoured), (-1, odds.others)):
                share = logits[:, list(group)].softmax(1)
                slope[:, list(group)] += sign * share
                entropy -= sign * (share * share.log()).sum(1)
            to_second = (slope @ net.w3) * (second > 0)
            to_first = (to_second @ net.w2) * (first > 0)
            image = outputs.cam[:, row].sum((1, 2))
            depth = depth_mm * (to_first @ net.w1_depth)
            patient = to_first @ of_patient
            bias = to_first @ net.b1 + to_second @ net.b2 + slope @ net.b3 + entropy
            expected = lse(logits, odds.favoured) - lse(logits, odds.others)
            torch.testing.assert_close(image + depth + patient + bias, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shipped roles", [((1, 2, 3), (0,)), ((2, 3), (0, 1)), ((3,), (2,))]),
        ("two classes, no patient, no outcome", [((1,), (0,)), ((1,), (0,)), ((0, 1), (0, 1))]),
        ("malignant in the middle", [((1, 2, 3, 4), (0,)), ((1, 3), (0, 2, 4)), ((1,), (3,))]),
        ("malignant first", [((0, 2), (1,)), ((0,), (1, 2)), ((0, 1, 2), (0, 1, 2))]),
    ],
)
def test_the_log_odds_follow_the_cards_roles(name, expected):
    assert list(log_odds(CARDS[name])) == [LogOdds(*groups) for groups in expected]


def test_without_an_outcome_its_map_is_zero_and_the_others_are_not():
    net = random_net(card(outcome=()))
    with torch.no_grad():
        cam = net.tail(*tail_inputs(net)).cam
    assert not cam[:, 2].any()
    assert (cam[:, :2].abs().amax((2, 3)) > 1e-6).all()


def test_tiles_are_scaled_standardised_and_turned_channels_first():
    net = random_net(card())
    tiles = torch.zeros(1, TILE_PX, TILE_PX, 3, dtype=torch.uint8)
    tiles[0, 3, 5] = torch.tensor([255, 0, 51], dtype=torch.uint8)
    pixel = net.normalised(tiles)[0, :, 3, 5]
    expected = [(1 - 0.5) / 0.2, (0 - 0.4) / 0.3, (0.2 - 0.3) / 0.4]
    np.testing.assert_allclose(pixel.numpy(), expected, rtol=1e-6)  # mean and std are float32 constants


def test_permuting_the_tiles_permutes_every_output():
    net = random_net(card())
    order = torch.tensor([2, 0, 1])
    tiles = drawn(3)
    with torch.no_grad():
        for before, after in zip(net(tiles), net(tiles[order]), strict=True):
            torch.testing.assert_close(before[order], after, rtol=0, atol=1e-12)


def test_the_weights_file_contains_no_constant_of_the_card():
    tops = {name.split(".")[0] for name in MelanomaNet.from_card(card()).state_dict()}
    assert tops == {"backbone", "attention", "depth", "w1_image", *TENSORS}


def test_head_tensors_are_the_hosts_head_in_float32():
    tensors = head_tensors(random_net(card()))
    assert set(tensors) == set(TENSORS)
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    assert Head.from_tensors(tensors).w1_patient.shape == (128, 7)


@pytest.mark.parametrize("changes", [{"network": None}, {"tile_px": 224}], ids=["no network", "tile size"])
def test_a_card_that_does_not_describe_our_network_is_refused(changes):
    with pytest.raises(BundleError):
        MelanomaNet.from_card(card().model_copy(update=changes))


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Tensors that say that they are on a GPU, and the calls of the attention's operator."""
    from mminfer_kernels import torch_ops

    calls, operator = [], torch_ops.spatial_attention
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _tensor: True))
    monkeypatch.setattr(torch_ops, "spatial_attention", lambda *given: calls.append(len(given)) or operator(*given))
    return calls


def test_on_cuda_without_gradients_the_tail_is_computed_by_the_attention_s_operator(net, monkeypatch, as_on_cuda):
    x, depth_mm = tail_inputs(net)
    with torch.no_grad():
        attended = net.tail(x, depth_mm)
    assert as_on_cuda == [3]
    monkeypatch.undo()
    with torch.no_grad():
        projected = net.tail(x, depth_mm)
    for name, expected in projected._asdict().items():
        torch.testing.assert_close(getattr(attended, name), expected, rtol=1e-12, atol=1e-12, msg=name)


def test_on_cuda_with_gradients_the_steps_are_kept(net, as_on_cuda):
    x, depth_mm = tail_inputs(net)
    net.tail(x, depth_mm).probabilities[:, 0].sum().backward()
    assert as_on_cuda == []
    assert net.attention.weight.grad.abs().sum() > 0
