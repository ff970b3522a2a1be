"""The labeling projects: their configs, tasks, answers and servers."""
