//! What queries need of the database.
/// x
pub trait AnswerSource {}
/// x
pub struct SourceError;
