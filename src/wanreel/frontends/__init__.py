"""The front doors. Each only translates: its own input into a VideoRequest, events into its own words."""
