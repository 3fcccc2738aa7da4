"""`calibrate`: rows, runs, predicted times, tests, operating points and the page that shows them."""
