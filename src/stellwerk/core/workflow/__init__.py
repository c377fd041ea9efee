"""The rules of a durable run: statuses, inputs, entries, actions, and the pure machine that ties them."""
