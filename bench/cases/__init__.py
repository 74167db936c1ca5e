"""What is measured, one module a group; `bench.plan` puts them into a run."""
