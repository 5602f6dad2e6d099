//! Effects: gathers facts, applies the steps of a plan, undoes them; one OCI verb a file.
