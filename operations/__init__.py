"""What people run: the command line, settings, the embedded world, what operators look at, simulated FSPs, the demo."""
