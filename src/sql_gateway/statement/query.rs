//! Queries: WITH, UNION and similar, ORDER BY, LIMIT.

use sqlparser::ast::{
    Cte, Expr, GroupByWithModifier, Interpolate, InterpolateExpr, LimitClause, Offset, OrderBy, OrderByExpr,
    OrderByKind, OrderByOptions, OrderBySort, Query, SetExpr, SetOperator, SetQuantifier, TableAlias, With, WithFill,
};

use super::{Refusal, Writer};

impl Writer<'_> {
    /// A query within parentheses.
    pub(super) fn subquery(&mut self, query: &Query) -> Result<(), Refusal> {
        self.push("(");
        self.deeper(|writer| writer.query(query))?;
        self.push(")");
        Ok(())
    }

    pub(super) fn query(&mut self, query: &Query) -> Result<(), Refusal> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        if settings.is_some() {
            return Err(Refusal::not_allowed("SETTINGS in a subquery (put it at the end of the statement)"));
        }
        if format_clause.is_some() {
            return Err(Refusal::Syntax("FORMAT stands at the end of the statement only".to_owned()));
        }
        if fetch.is_some() || !locks.is_empty() || for_clause.is_some() || !pipe_operators.is_empty() {
            return Err(Refusal::not_allowed("FETCH, FOR or a pipe"));
        }
        let names = self.names.len();
        if let Some(with) = with {
            self.with(with)?;
        }
        self.set_expr(body)?;
        if let Some(order_by) = order_by {
            self.order_by(order_by)?;
        }
        if let Some(limit) = limit_clause {
            self.limit(limit)?;
        }
        self.names.truncate(names);
        Ok(())
    }

    fn with(&mut self, with: &With) -> Result<(), Refusal> {
        let With { with_token: _, recursive, cte_tables } = with;
        if *recursive {
            return Err(Refusal::not_allowed("WITH RECURSIVE"));
        }
        self.push("WITH ");
        self.list(cte_tables, |writer, cte| {
            let Cte { alias, query, from, materialized, closing_paren_token: _ } = cte;
            let TableAlias { explicit: _, name, columns, at } = alias;
            if !columns.is_empty() || at.is_some() || from.is_some() || materialized.is_some() {
                return Err(Refusal::not_allowed("this form of WITH"));
            }
            writer.identifier(name)?;
            writer.push(" AS ");
            writer.subquery(query)?;
            writer.names.push(name.value.clone());
            Ok(())
        })?;
        self.push(" ");
        Ok(())
    }

    fn set_expr(&mut self, body: &SetExpr) -> Result<(), Refusal> {
        match body {
            SetExpr::Select(select) => self.deeper(|writer| writer.select(select)),
            SetExpr::Query(query) => self.subquery(query),
            SetExpr::SetOperation { left, op, set_quantifier, right } => self.deeper(|writer| {
                writer.operand(left, (op, set_quantifier))?;
                writer.push(match op {
                    SetOperator::Union => " UNION",
                    SetOperator::Except | SetOperator::Minus => " EXCEPT",
                    SetOperator::Intersect => " INTERSECT",
                });
                writer.push(match set_quantifier {
                    SetQuantifier::All => " ALL ",
                    SetQuantifier::Distinct => " DISTINCT ",
                    SetQuantifier::None if *op == SetOperator::Union => {
                        return Err(Refusal::Syntax("say UNION ALL or UNION DISTINCT".to_owned()));
                    }
                    SetQuantifier::None => " ",
                    other => return Err(Refusal::not_allowed(format!("{op} {other}"))),
                });
                writer.operand(right, (op, set_quantifier))
            }),
            _ => Err(Refusal::not_allowed("anything but SELECT")),
        }
    }

    /// One side of a UNION and its like. Without parentheses where it can be: WITH
    /// may stand before a SELECT, not before one of these.
    fn operand(&mut self, body: &SetExpr, around: (&SetOperator, &SetQuantifier)) -> Result<(), Refusal> {
        let is_of_the_same_chain = match body {
            SetExpr::SetOperation { op, set_quantifier, .. } => (op, set_quantifier) == around,
            _ => true,
        };
        if is_of_the_same_chain {
            return self.set_expr(body);
        }
        self.push("(");
        self.set_expr(body)?;
        self.push(")");
        Ok(())
    }

    fn order_by(&mut self, order_by: &OrderBy) -> Result<(), Refusal> {
        let OrderBy { kind, interpolate } = order_by;
        self.push(" ORDER BY ");
        match kind {
            OrderByKind::All(options) => {
                self.push("ALL");
                self.order_options(options)?;
            }
            OrderByKind::Expressions(parts) => self.list(parts, Self::order)?,
        }
        let Some(Interpolate { exprs }) = interpolate else { return Ok(()) };
        self.push(" INTERPOLATE");
        let Some(exprs) = exprs else { return Ok(()) };
        self.push(" (");
        self.list(exprs, |writer, InterpolateExpr { column, expr }| {
            writer.identifier(column)?;
            let Some(expr) = expr else { return Ok(()) };
            writer.push(" AS ");
            writer.expr(expr)
        })?;
        self.push(")");
        Ok(())
    }

    pub(super) fn order(&mut self, part: &OrderByExpr) -> Result<(), Refusal> {
        let OrderByExpr { expr, options, with_fill } = part;
        self.expr(expr)?;
        self.order_options(options)?;
        let Some(WithFill { from, to, step }) = with_fill else { return Ok(()) };
        self.push(" WITH FILL");
        for (word, value) in [(" FROM ", from), (" TO ", to), (" STEP ", step)] {
            if let Some(value) = value {
                self.push(word);
                self.expr(value)?;
            }
        }
        Ok(())
    }

    fn order_options(&mut self, options: &OrderByOptions) -> Result<(), Refusal> {
        let OrderByOptions { sort, nulls_first } = options;
        match sort {
            None => {}
            Some(OrderBySort::Asc) => self.push(" ASC"),
            Some(OrderBySort::Desc) => self.push(" DESC"),
            Some(OrderBySort::Using(_)) => return Err(Refusal::not_allowed("ORDER BY … USING")),
        }
        match nulls_first {
            None => {}
            Some(true) => self.push(" NULLS FIRST"),
            Some(false) => self.push(" NULLS LAST"),
        }
        Ok(())
    }

    fn limit(&mut self, limit: &LimitClause) -> Result<(), Refusal> {
        match limit {
            LimitClause::LimitOffset { limit, offset, limit_by } => {
                if let Some(limit) = limit {
                    self.push(" LIMIT ");
                    self.expr(limit)?;
                }
                if let Some(Offset { value, rows: _ }) = offset {
                    self.push(" OFFSET ");
                    self.expr(value)?;
                }
                if !limit_by.is_empty() {
                    self.push(" BY ");
                    self.list(limit_by, Self::expr)?;
                }
                Ok(())
            }
            LimitClause::OffsetCommaLimit { offset, limit } => {
                self.push(" LIMIT ");
                self.expr(offset)?;
                self.push(", ");
                self.expr(limit)
            }
        }
    }

    pub(super) fn group_by_modifiers(&mut self, modifiers: &[GroupByWithModifier]) -> Result<(), Refusal> {
        for modifier in modifiers {
            match modifier {
                GroupByWithModifier::Rollup => self.push(" WITH ROLLUP"),
                GroupByWithModifier::Cube => self.push(" WITH CUBE"),
                GroupByWithModifier::Totals => self.push(" WITH TOTALS"),
                GroupByWithModifier::GroupingSets(sets) => self.grouping_sets(sets)?,
            }
        }
        Ok(())
    }

    fn grouping_sets(&mut self, sets: &Expr) -> Result<(), Refusal> {
        let Expr::GroupingSets(sets) = sets else { return Err(Refusal::not_allowed("this form of GROUP BY")) };
        self.push(" GROUPING SETS (");
        self.list(sets, |writer, set| {
            writer.push("(");
            writer.list(set, Self::expr)?;
            writer.push(")");
            Ok(())
        })?;
        self.push(")");
        Ok(())
    }
}
