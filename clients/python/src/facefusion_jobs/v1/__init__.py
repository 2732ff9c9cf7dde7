"""The contract, generated: see `npm run generate` in the repository."""
