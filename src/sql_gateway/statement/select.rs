//! SELECT and its clauses.

use sqlparser::ast::{
    Distinct, ExceptSelectItem, Expr, GroupByExpr, NamedWindowDefinition, NamedWindowExpr, ReplaceSelectElement,
    ReplaceSelectItem, Select, SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind, WildcardAdditionalOptions,
};

use super::{Refusal, Writer};

impl Writer<'_> {
    pub(super) fn select(&mut self, select: &Select) -> Result<(), Refusal> {
        let Select {
            select_token: _,
            optimizer_hints,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        if into.is_some() {
            return Err(Refusal::not_allowed("INTO"));
        }
        let is_plain = optimizer_hints.is_empty()
            && select_modifiers.is_none()
            && top.is_none()
            && exclude.is_none()
            && lateral_views.is_empty()
            && connect_by.is_empty()
            && cluster_by.is_empty()
            && distribute_by.is_empty()
            && sort_by.is_empty()
            && value_table_mode.is_none()
            && *flavor == SelectFlavor::Standard;
        if !is_plain {
            return Err(Refusal::not_allowed("a clause of this SELECT, which ClickHouse does not have,"));
        }
        if projection.is_empty() {
            return Err(Refusal::Syntax("SELECT is followed by what to select".to_owned()));
        }
        self.push("SELECT ");
        self.distinct(distinct.as_ref())?;
        self.list(projection, Self::item)?;
        if !from.is_empty() {
            self.push(" FROM ");
            self.list(from, Self::table_with_joins)?;
        }
        self.clause(" PREWHERE ", prewhere.as_ref())?;
        self.clause(" WHERE ", selection.as_ref())?;
        self.group_by(group_by)?;
        self.clause(" HAVING ", having.as_ref())?;
        self.named_windows(named_window)?;
        self.clause(" QUALIFY ", qualify.as_ref())
    }

    fn clause(&mut self, word: &str, expr: Option<&Expr>) -> Result<(), Refusal> {
        let Some(expr) = expr else { return Ok(()) };
        self.push(word);
        self.expr(expr)
    }

    fn distinct(&mut self, distinct: Option<&Distinct>) -> Result<(), Refusal> {
        match distinct {
            None | Some(Distinct::All) => {}
            Some(Distinct::Distinct) => self.push("DISTINCT "),
            Some(Distinct::On(columns)) => {
                self.push("DISTINCT ON (");
                self.list(columns, Self::expr)?;
                self.push(") ");
            }
        }
        Ok(())
    }

    pub(super) fn item(&mut self, item: &SelectItem) -> Result<(), Refusal> {
        match item {
            SelectItem::UnnamedExpr(expr) => self.expr(expr),
            SelectItem::ExprWithAlias { expr, alias } => {
                self.expr(expr)?;
                self.push(" AS ");
                self.identifier(alias)
            }
            SelectItem::Wildcard(options) => self.wildcard(options),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                let parts: Vec<_> = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
                match parts.as_slice() {
                    [table] => self.identifier(table)?,
                    [database, table] if self.scope.view(Some(&database.value), &table.value).is_some() => {
                        let database = self.scope.database.clone();
                        self.push(&format!("`{database}`."));
                        self.identifier(table)?;
                    }
                    _ => return Err(Refusal::UnknownTable(name.to_string())),
                }
                self.push(".");
                self.wildcard(options)
            }
            SelectItem::QualifiedWildcard(..) | SelectItem::ExprWithAliases { .. } => {
                Err(Refusal::not_allowed(format!("{item} as a column")))
            }
        }
    }

    fn wildcard(&mut self, options: &WildcardAdditionalOptions) -> Result<(), Refusal> {
        let WildcardAdditionalOptions {
            wildcard_token: _,
            opt_ilike,
            opt_exclude,
            opt_except,
            opt_replace,
            opt_rename,
            opt_alias,
        } = options;
        if opt_ilike.is_some() || opt_exclude.is_some() || opt_rename.is_some() || opt_alias.is_some() {
            return Err(Refusal::not_allowed(format!("*{options}")));
        }
        self.push("*");
        if let Some(ExceptSelectItem { first_element, additional_elements }) = opt_except {
            self.push(" EXCEPT (");
            self.list(std::iter::once(first_element).chain(additional_elements), Self::identifier)?;
            self.push(")");
        }
        if let Some(ReplaceSelectItem { items }) = opt_replace {
            self.push(" REPLACE (");
            self.list(items, |writer, item| {
                let ReplaceSelectElement { expr, column_name, as_keyword: _ } = &**item;
                writer.expr(expr)?;
                writer.push(" AS ");
                writer.identifier(column_name)
            })?;
            self.push(")");
        }
        Ok(())
    }

    fn group_by(&mut self, group_by: &GroupByExpr) -> Result<(), Refusal> {
        match group_by {
            GroupByExpr::All(modifiers) => {
                self.push(" GROUP BY ALL");
                self.group_by_modifiers(modifiers)
            }
            GroupByExpr::Expressions(exprs, modifiers) => {
                if !exprs.is_empty() || !modifiers.is_empty() {
                    self.push(" GROUP BY ");
                }
                self.list(exprs, Self::grouping)?;
                self.group_by_modifiers(modifiers)
            }
        }
    }

    /// `ROLLUP(a, b)` and its like stand in GROUP BY only.
    fn grouping(&mut self, expr: &Expr) -> Result<(), Refusal> {
        let (word, sets) = match expr {
            Expr::Rollup(sets) => ("ROLLUP", sets),
            Expr::Cube(sets) => ("CUBE", sets),
            Expr::GroupingSets(sets) => ("GROUPING SETS", sets),
            _ => return self.expr(expr),
        };
        self.push(&format!("{word} ("));
        self.list(sets, |writer, set| {
            writer.push("(");
            writer.list(set, Self::expr)?;
            writer.push(")");
            Ok(())
        })?;
        self.push(")");
        Ok(())
    }

    fn named_windows(&mut self, windows: &[NamedWindowDefinition]) -> Result<(), Refusal> {
        if windows.is_empty() {
            return Ok(());
        }
        self.push(" WINDOW ");
        self.list(windows, |writer, NamedWindowDefinition(name, window)| {
            writer.identifier(name)?;
            writer.push(" AS ");
            match window {
                NamedWindowExpr::WindowSpec(spec) => writer.window(spec),
                NamedWindowExpr::NamedWindow(name) => writer.identifier(name),
            }
        })
    }
}
