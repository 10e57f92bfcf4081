"""An offline rail for trying things out: a hosted page where a tester decides how the payment goes."""
