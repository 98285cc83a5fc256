"""Every JSON document there is: one frozen class, one schema and one check each."""
