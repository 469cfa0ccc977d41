//! Joins.

use sqlparser::ast::{
    Expr, Join, JoinConstraint, JoinOperator, ObjectNamePart, Query, Select, SelectItem, SetExpr, TableFactor,
    TableWithJoins,
};

use super::{Refusal, Writer};

impl Writer<'_> {
    pub(super) fn table_with_joins(&mut self, tables: &TableWithJoins) -> Result<(), Refusal> {
        let TableWithJoins { relation, joins } = tables;
        self.table(relation)?;
        for Join { relation, global: _, join_operator } in joins {
            match join_operator {
                JoinOperator::ArrayJoin | JoinOperator::InnerArrayJoin => self.array_join(" ARRAY JOIN ", relation)?,
                JoinOperator::LeftArrayJoin => self.array_join(" LEFT ARRAY JOIN ", relation)?,
                operator => {
                    let (word, constraint) = join(operator)?;
                    self.push(word);
                    self.table(relation)?;
                    self.constraint(constraint)?;
                }
            }
        }
        Ok(())
    }

    /// The expressions that [`super::array_join`] has put into a subquery.
    fn array_join(&mut self, word: &str, relation: &TableFactor) -> Result<(), Refusal> {
        let items = match relation {
            TableFactor::Derived { lateral: false, subquery, alias: None, sample: None } => items(subquery),
            _ => None,
        };
        let items = items.ok_or_else(|| Refusal::Syntax("ARRAY JOIN takes expressions with names".to_owned()))?;
        self.push(word);
        self.list(items, Self::item)
    }

    fn constraint(&mut self, constraint: &JoinConstraint) -> Result<(), Refusal> {
        match constraint {
            JoinConstraint::On(expr) => {
                self.push(" ON ");
                self.expr(expr)
            }
            JoinConstraint::Using(columns) => {
                self.push(" USING (");
                self.list(columns, |writer, column| match column.0.as_slice() {
                    [ObjectNamePart::Identifier(name)] => writer.identifier(name),
                    _ => Err(Refusal::Syntax(format!("USING takes names of columns, not {column}"))),
                })?;
                self.push(")");
                Ok(())
            }
            JoinConstraint::None => Ok(()),
            JoinConstraint::Natural | JoinConstraint::UsingAlias(..) => Err(Refusal::not_allowed("this form of JOIN")),
        }
    }
}

fn join(operator: &JoinOperator) -> Result<(&'static str, &JoinConstraint), Refusal> {
    Ok(match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (" INNER JOIN ", constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (" LEFT JOIN ", constraint),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (" RIGHT JOIN ", constraint),
        JoinOperator::FullOuter(constraint) => (" FULL JOIN ", constraint),
        JoinOperator::CrossJoin(constraint) => (" CROSS JOIN ", constraint),
        JoinOperator::Semi(constraint) | JoinOperator::LeftSemi(constraint) => (" LEFT SEMI JOIN ", constraint),
        JoinOperator::RightSemi(constraint) => (" RIGHT SEMI JOIN ", constraint),
        JoinOperator::Anti(constraint) | JoinOperator::LeftAnti(constraint) => (" LEFT ANTI JOIN ", constraint),
        JoinOperator::RightAnti(constraint) => (" RIGHT ANTI JOIN ", constraint),
        _ => return Err(Refusal::not_allowed("this kind of JOIN")),
    })
}

/// What a query selects, if it is `SELECT …` and nothing else.
fn items(query: &Query) -> Option<&[SelectItem]> {
    let SetExpr::Select(select) = &*query.body else { return None };
    let Select { projection, .. } = &**select;
    let bare = format!("SELECT {}", projection.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    (query.to_string() == bare && !projection.iter().any(is_wildcard)).then_some(projection)
}

const fn is_wildcard(item: &SelectItem) -> bool {
    matches!(
        item,
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) | SelectItem::UnnamedExpr(Expr::Wildcard(_))
    )
}
