//! What every implementation of the catalogue must do.

mod authentication;
mod idempotency;
mod life;
mod lists;
mod summary;
mod validation;
