"""From a wish to a pod: GPUs, prices, the plan, a create that happens once, and what a failure leaves behind."""
