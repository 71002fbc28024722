"""Built-in methods: each composes the stages into a contender."""
