"""Times attention_pool at the network's sizes; its rows go into results/kernels.csv."""

from kernel_rows import add_rows

if __name__ == "__main__":
    add_rows("attention_pool")
