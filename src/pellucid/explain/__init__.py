"""Why a network answers as it does: every value it computes, and what moved it."""
