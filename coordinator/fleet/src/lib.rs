//! Pure fleet state: ownership, evacuations, placement.
