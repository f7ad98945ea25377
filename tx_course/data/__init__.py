"""The data of the course: one module per data set, its files and their licences beside it."""
