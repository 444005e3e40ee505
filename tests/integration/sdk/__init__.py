"""The worker libraries of sdk/, built as their users build them, and what is done with them."""
