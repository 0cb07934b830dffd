//! The verbs library behind types that own what it hands out. The one promise that callers must
//! keep is that of [`Qp::post`] and [`Mr::register`]: memory outlives what the device was told of it.
//!
//! Ownership is the library's own order, by `Arc`: context, then domain and completion queue, then registration and
//! queue pair. So none can be destroyed before what lives in it.
#![allow(unsafe_code, reason = "the library is C")]

mod completions;
mod context;
mod domain;
mod qp;

pub(crate) use completions::{Completion, Completions};
pub(crate) use context::{Context, device_names};
pub(crate) use domain::{Access, Mr, Pd};
pub(crate) use qp::{Entry, Local, Qp, Read};
