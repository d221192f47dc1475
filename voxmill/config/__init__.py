"""The settings and their checks, defined once; JSON schema and docs are made from them."""
