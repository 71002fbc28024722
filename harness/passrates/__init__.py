"""What the base's pass rate does to a method: gain by pass rate, break-even, why it breaks, what a run could have seen."""
