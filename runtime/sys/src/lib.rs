//! Kernel calls for croft, one file per facility: mechanism, no policy. The only crate with `unsafe`.
