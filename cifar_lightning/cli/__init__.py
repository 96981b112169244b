"""The commands that need a Trainer: `fit`, `validate`, `test` and `predict`."""
