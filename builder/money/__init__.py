"""What costs money: everything that runs, what it costs, and who ends what was forgotten."""
