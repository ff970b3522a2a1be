"""The drawn world with known answers that the demo and the tests share."""
