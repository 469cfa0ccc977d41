//! Operators as ClickHouse writes them.

use sqlparser::ast::{BinaryOperator, UnaryOperator};

use super::Refusal;

pub(super) fn binary(operator: &BinaryOperator) -> Result<&'static str, Refusal> {
    Ok(match operator {
        BinaryOperator::Plus => "+",
        BinaryOperator::Minus => "-",
        BinaryOperator::Multiply => "*",
        BinaryOperator::Divide => "/",
        BinaryOperator::Modulo => "%",
        BinaryOperator::StringConcat => "||",
        BinaryOperator::Gt => ">",
        BinaryOperator::Lt => "<",
        BinaryOperator::GtEq => ">=",
        BinaryOperator::LtEq => "<=",
        BinaryOperator::Spaceship => "<=>",
        BinaryOperator::Eq => "=",
        BinaryOperator::NotEq => "!=",
        BinaryOperator::And => "AND",
        BinaryOperator::Or => "OR",
        other => return Err(Refusal::not_allowed(format!("the operator {other}"))),
    })
}

pub(super) fn unary(operator: UnaryOperator) -> Result<&'static str, Refusal> {
    Ok(match operator {
        UnaryOperator::Minus => "-",
        UnaryOperator::Plus => "",
        UnaryOperator::Not => "NOT ",
        other => return Err(Refusal::not_allowed(format!("the operator {other}"))),
    })
}
