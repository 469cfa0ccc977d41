//! Attacks of analysts on SQL: on other organizations' rows, on files, on the
//! engine's time. Each is made twice: through the gateway, as an analyst would,
//! and at the engine itself with the password that only the service has, so that
//! each barrier is seen to hold alone.

mod asker;
mod files;
mod limits;
mod origin;
mod rows;
