//! Expressions.

use sqlparser::ast::{
    AccessExpr, Array, BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DateTimeField, DictionaryField, Expr,
    InTarget, Interval, LambdaFunction, OneOrManyWithParens, Subscript, TrimWhereField, TypedString, ValueWithSpan,
};

use super::{Refusal, Writer, operator};

impl Writer<'_> {
    pub(super) fn expr(&mut self, expr: &Expr) -> Result<(), Refusal> {
        self.deeper(|writer| writer.expr_here(expr))
    }

    fn expr_here(&mut self, expr: &Expr) -> Result<(), Refusal> {
        match expr {
            Expr::Identifier(ident) => self.identifier(ident),
            Expr::CompoundIdentifier(parts) => self.column(parts),
            Expr::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            Expr::Value(ValueWithSpan { value, span: _ }) => self.value(value),
            Expr::Nested(inner) => self.expr(inner),
            Expr::Function(function) => self.function(function),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::UnaryOp { op, expr } => {
                let sign = operator::unary(*op)?;
                self.parenthesized(sign, expr, "")
            }
            Expr::IsNull(expr) => self.parenthesized("", expr, " IS NULL"),
            Expr::IsNotNull(expr) => self.parenthesized("", expr, " IS NOT NULL"),
            Expr::IsTrue(expr) => self.parenthesized("", expr, " = true"),
            Expr::IsFalse(expr) => self.parenthesized("", expr, " = false"),
            Expr::IsDistinctFrom(left, right) => self.infix(left, " IS DISTINCT FROM ", right),
            Expr::IsNotDistinctFrom(left, right) => self.infix(left, " IS NOT DISTINCT FROM ", right),
            Expr::In { expr, target, negated, global: _ } => self.membership(expr, target, *negated),
            Expr::Between { expr, negated, low, high } => {
                self.push("(");
                self.expr(expr)?;
                self.push(if *negated { " NOT BETWEEN " } else { " BETWEEN " });
                self.expr(low)?;
                self.push(" AND ");
                self.expr(high)?;
                self.push(")");
                Ok(())
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
                self.infix(expr, if *negated { " NOT LIKE " } else { " LIKE " }, pattern)
            }
            Expr::ILike { negated, any: false, expr, pattern, escape_char: None } => {
                self.infix(expr, if *negated { " NOT ILIKE " } else { " ILIKE " }, pattern)
            }
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, format: None } => {
                self.push("CAST(");
                self.expr(expr)?;
                self.push(", ");
                self.data_type(data_type)?;
                self.push(")");
                Ok(())
            }
            Expr::TypedString(TypedString { data_type, value, uses_odbc_syntax: false }) => {
                self.push("CAST(");
                self.value(&value.value)?;
                self.push(", ");
                self.data_type(data_type)?;
                self.push(")");
                Ok(())
            }
            Expr::Extract { field, syntax: _, expr } => {
                let function = extraction(field)?;
                self.call(function, [&**expr])
            }
            Expr::Ceil { expr, field } => self.rounding("ceil", expr, field),
            Expr::Floor { expr, field } => self.rounding("floor", expr, field),
            Expr::Position { expr, r#in } => self.call("position", [&**r#in, &**expr]),
            Expr::Substring { expr, substring_from, substring_for, special: _, shorthand: _ } => {
                let bounds = [Some(expr), substring_from.as_ref(), substring_for.as_ref()];
                self.call("substring", bounds.into_iter().flatten().map(|bound| &**bound))
            }
            Expr::Trim { trim_where, trim_what, expr, trim_characters: None } => {
                let function = match trim_where {
                    None | Some(TrimWhereField::Both) => "trimBoth",
                    Some(TrimWhereField::Leading) => "trimLeft",
                    Some(TrimWhereField::Trailing) => "trimRight",
                };
                self.call(function, [Some(expr), trim_what.as_ref()].into_iter().flatten().map(|part| &**part))
            }
            Expr::AtTimeZone { timestamp, time_zone } => self.call("toTimeZone", [&**timestamp, &**time_zone]),
            Expr::Case { case_token: _, end_token: _, operand, conditions, else_result } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            Expr::Exists { subquery, negated } => {
                self.push(if *negated { "(NOT EXISTS " } else { "(EXISTS " });
                self.subquery(subquery)?;
                self.push(")");
                Ok(())
            }
            Expr::Subquery(query) => self.subquery(query),
            Expr::Tuple(parts) => {
                self.push("tuple(");
                self.list(parts, Self::expr)?;
                self.push(")");
                Ok(())
            }
            Expr::Array(Array { elem, named: _ }) => {
                self.push("[");
                self.list(elem, Self::expr)?;
                self.push("]");
                Ok(())
            }
            Expr::Dictionary(fields) => self.map(fields),
            Expr::Interval(interval) => self.interval(interval),
            Expr::Lambda(lambda) => self.lambda(lambda),
            Expr::Wildcard(_) => {
                self.push("*");
                Ok(())
            }
            other => Err(Refusal::not_allowed(format!("the expression {other}"))),
        }
    }

    /// A column, with its table and database in front or without.
    fn column(&mut self, parts: &[sqlparser::ast::Ident]) -> Result<(), Refusal> {
        // A view with its database: ClickHouse's own name of the database may
        // differ from the one that analysts know.
        match parts {
            [database, view, rest @ ..]
                if !rest.is_empty() && self.scope.view(Some(&database.value), &view.value).is_some() =>
            {
                let database = self.scope.database.clone();
                self.push(&format!("`{database}`."));
                self.compound(&parts[1..])
            }
            _ => self.compound(parts),
        }
    }

    /// Something within parentheses, with a text before it and one behind.
    fn parenthesized(&mut self, before: &str, expr: &Expr, behind: &str) -> Result<(), Refusal> {
        self.push("(");
        self.push(before);
        self.push("(");
        self.expr(expr)?;
        self.push(")");
        self.push(behind);
        self.push(")");
        Ok(())
    }

    fn infix(&mut self, left: &Expr, between: &str, right: &Expr) -> Result<(), Refusal> {
        self.push("(");
        self.expr(left)?;
        self.push(between);
        self.expr(right)?;
        self.push(")");
        Ok(())
    }

    /// Long chains, such as hundreds of conditions, lean to the left: they are
    /// walked, not descended into.
    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<(), Refusal> {
        let mut chain = vec![(op, right)];
        let mut first = left;
        while let Expr::BinaryOp { left, op: inner, right } = first {
            if inner != op || !matches!(op, BinaryOperator::And | BinaryOperator::Or) {
                break;
            }
            chain.push((inner, &**right));
            first = left;
        }
        self.push("(");
        self.expr(first)?;
        for (op, right) in chain.into_iter().rev() {
            let sign = operator::binary(op)?;
            self.push(&format!(" {sign} "));
            self.expr(right)?;
        }
        self.push(")");
        Ok(())
    }

    fn membership(&mut self, expr: &Expr, target: &InTarget, negated: bool) -> Result<(), Refusal> {
        self.push("(");
        self.expr(expr)?;
        self.push(if negated { " NOT IN " } else { " IN " });
        match target {
            InTarget::List(values) => {
                self.push("(");
                self.list(values, Self::expr)?;
                self.push(")");
            }
            InTarget::Subquery(query) => self.subquery(query)?,
            InTarget::Table { name, args: None } => self.table_of_membership(name)?,
            other => return Err(Refusal::not_allowed(format!("IN {other}"))),
        }
        self.push(")");
        Ok(())
    }

    fn access(&mut self, root: &Expr, chain: &[AccessExpr]) -> Result<(), Refusal> {
        // `tuple.1` and `array[1]`, each of the one before.
        let Some((last, before)) = chain.split_last() else { return self.expr(root) };
        let function = match last {
            AccessExpr::Dot(_) => "tupleElement(",
            AccessExpr::Subscript(_) => "arrayElement(",
        };
        self.push(function);
        self.deeper(|writer| writer.access(root, before))?;
        self.push(", ");
        match last {
            AccessExpr::Subscript(Subscript::Index { index }) => self.expr(index)?,
            AccessExpr::Dot(Expr::Value(ValueWithSpan { value, span: _ })) => self.value(value)?,
            AccessExpr::Dot(Expr::Identifier(name)) => {
                super::literal::check_name(&name.value)?;
                self.push(&super::literal::quoted(&name.value));
            }
            other => return Err(Refusal::not_allowed(format!("the access {other}"))),
        }
        self.push(")");
        Ok(())
    }

    fn case(
        &mut self,
        operand: Option<&Expr>,
        conditions: &[CaseWhen],
        otherwise: Option<&Expr>,
    ) -> Result<(), Refusal> {
        self.push("CASE");
        if let Some(operand) = operand {
            self.push(" ");
            self.expr(operand)?;
        }
        for CaseWhen { condition, result } in conditions {
            self.push(" WHEN ");
            self.expr(condition)?;
            self.push(" THEN ");
            self.expr(result)?;
        }
        if let Some(otherwise) = otherwise {
            self.push(" ELSE ");
            self.expr(otherwise)?;
        }
        self.push(" END");
        Ok(())
    }

    fn map(&mut self, fields: &[DictionaryField]) -> Result<(), Refusal> {
        self.push("map(");
        self.list(fields, |writer, DictionaryField { key, value }| {
            super::literal::check_name(&key.value)?;
            writer.push(&super::literal::quoted(&key.value));
            writer.push(", ");
            writer.expr(value)
        })?;
        self.push(")");
        Ok(())
    }

    fn interval(&mut self, interval: &Interval) -> Result<(), Refusal> {
        let Interval { value, leading_field, leading_precision, last_field, fractional_seconds_precision } = interval;
        let refused = || Refusal::Syntax("an interval is written as INTERVAL 1 DAY".to_owned());
        if leading_precision.is_some() || last_field.is_some() || fractional_seconds_precision.is_some() {
            return Err(refused());
        }
        let field = leading_field.as_ref().ok_or_else(refused)?;
        self.call(length_of(field).ok_or_else(refused)?, [&**value])
    }

    fn lambda(&mut self, lambda: &LambdaFunction) -> Result<(), Refusal> {
        let LambdaFunction { params, body, syntax: _ } = lambda;
        let params = match params {
            OneOrManyWithParens::One(param) => std::slice::from_ref(param),
            OneOrManyWithParens::Many(params) => params.as_slice(),
        };
        self.push("((");
        self.list(params, |writer, param| match &param.data_type {
            None => writer.identifier(&param.name),
            Some(_) => Err(Refusal::Syntax("a parameter of a function has no type".to_owned())),
        })?;
        self.push(") -> ");
        self.expr(body)?;
        self.push(")");
        Ok(())
    }

    fn rounding(&mut self, function: &str, expr: &Expr, field: &CeilFloorKind) -> Result<(), Refusal> {
        self.push(&format!("{function}("));
        self.expr(expr)?;
        match field {
            CeilFloorKind::Scale(scale) => {
                self.push(", ");
                self.value(&scale.value)?;
            }
            CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => {}
            CeilFloorKind::DateTimeField(field) => return Err(Refusal::not_allowed(format!("{function} to {field}"))),
        }
        self.push(")");
        Ok(())
    }

    /// A function that is named here.
    fn call<'e>(&mut self, function: &str, args: impl IntoIterator<Item = &'e Expr>) -> Result<(), Refusal> {
        self.push(&format!("{function}("));
        self.list(args, Self::expr)?;
        self.push(")");
        Ok(())
    }
}

fn length_of(field: &DateTimeField) -> Option<&'static str> {
    Some(match field {
        DateTimeField::Year | DateTimeField::Years => "toIntervalYear",
        DateTimeField::Quarter => "toIntervalQuarter",
        DateTimeField::Month | DateTimeField::Months => "toIntervalMonth",
        DateTimeField::Week(None) | DateTimeField::Weeks => "toIntervalWeek",
        DateTimeField::Day | DateTimeField::Days => "toIntervalDay",
        DateTimeField::Hour | DateTimeField::Hours => "toIntervalHour",
        DateTimeField::Minute | DateTimeField::Minutes => "toIntervalMinute",
        DateTimeField::Second | DateTimeField::Seconds => "toIntervalSecond",
        DateTimeField::Millisecond | DateTimeField::Milliseconds => "toIntervalMillisecond",
        DateTimeField::Microsecond | DateTimeField::Microseconds => "toIntervalMicrosecond",
        DateTimeField::Nanosecond | DateTimeField::Nanoseconds => "toIntervalNanosecond",
        _ => return None,
    })
}

fn extraction(field: &DateTimeField) -> Result<&'static str, Refusal> {
    Ok(match field {
        DateTimeField::Year => "toYear",
        DateTimeField::Quarter => "toQuarter",
        DateTimeField::Month => "toMonth",
        DateTimeField::Week(None) | DateTimeField::IsoWeek => "toISOWeek",
        DateTimeField::Day => "toDayOfMonth",
        DateTimeField::DayOfWeek | DateTimeField::Dow | DateTimeField::Isodow => "toDayOfWeek",
        DateTimeField::DayOfYear | DateTimeField::Doy => "toDayOfYear",
        DateTimeField::Hour => "toHour",
        DateTimeField::Minute => "toMinute",
        DateTimeField::Second => "toSecond",
        DateTimeField::Epoch => "toUnixTimestamp",
        other => return Err(Refusal::not_allowed(format!("EXTRACT({other} FROM …)"))),
    })
}
