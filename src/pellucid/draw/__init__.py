"""Pictures of numbers, as SVG: text that stays text, readable on light and dark, in colours that all can tell apart."""
