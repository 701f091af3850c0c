"""The configuration: one YAML file, one model (`model.Config`), every value parsed at load."""
