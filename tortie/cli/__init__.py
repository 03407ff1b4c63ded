"""The `tortie` command: a thin front of the api, of the services' runners and of the lab.

`main` knows every command by name and loads only the module of the one that is asked for; `client` speaks to the api.
"""
