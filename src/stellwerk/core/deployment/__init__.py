"""The rules of deploying: what a declared configuration means, which Worker a request goes to, what a run freezes."""
