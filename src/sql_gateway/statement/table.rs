//! Sources of a SELECT: views, metadata, subqueries, and functions that generate numbers.

use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, TableAlias, TableFactor, TableFunctionArgs,
};

use super::metadata::Metadata;
use super::{Refusal, Writer};
use crate::sql_gateway::scope::View;

/// Table functions that read nothing.
const TABLE_FUNCTIONS: [&str; 7] =
    ["generate_series", "generateseries", "numbers", "numbers_mt", "null", "zeros", "zeros_mt"];

impl Writer<'_> {
    pub(super) fn table(&mut self, table: &TableFactor) -> Result<(), Refusal> {
        match table {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_directives,
                inheritance,
            } => {
                let is_plain = with_hints.is_empty()
                    && version.is_none()
                    && !with_ordinality
                    && partitions.is_empty()
                    && json_path.is_none()
                    && index_directives.is_empty()
                    && inheritance.is_none();
                if !is_plain {
                    return Err(Refusal::not_allowed(format!("this form of naming the table {name}")));
                }
                if sample.is_some() {
                    return Err(Refusal::not_allowed("SAMPLE"));
                }
                match args {
                    None => self.named_table(name)?,
                    Some(args) => self.table_function(name, args)?,
                }
                self.alias(alias.as_ref())
            }
            TableFactor::Derived { lateral: false, subquery, alias, sample: None } => {
                self.subquery(subquery)?;
                self.alias(alias.as_ref())
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.push("(");
                self.deeper(|writer| writer.table_with_joins(table_with_joins))?;
                self.push(")");
                Ok(())
            }
            other => Err(Refusal::not_allowed(format!("reading from {other}"))),
        }
    }

    /// `x IN table`.
    pub(super) fn table_of_membership(&mut self, name: &ObjectName) -> Result<(), Refusal> {
        match words(name)?.as_slice() {
            // A column that is an array, or a name that WITH has given.
            [word] if self.scope.view(None, &word.value).is_none() => self.identifier(word),
            _ => self.named_table(name),
        }
    }

    fn named_table(&mut self, name: &ObjectName) -> Result<(), Refusal> {
        let words = words(name)?;
        let (database, table) = match words.as_slice() {
            [table] if self.names.contains(&table.value) => return self.identifier(table),
            [table] => (None, *table),
            [database, table] => (Some(&*database.value), *table),
            _ => return Err(Refusal::UnknownTable(name.to_string())),
        };
        if let Some(view) = self.scope.view(database, &table.value) {
            if !view.parameters.is_empty() {
                let parameters = view.parameters.join(" = …, ");
                return Err(Refusal::Syntax(format!("{} takes arguments: {}({parameters} = …)", view.name, view.name)));
            }
            self.view(view);
            return Ok(());
        }
        let metadata = database.and_then(|database| Metadata::find(database, &table.value));
        let metadata = metadata.ok_or_else(|| Refusal::UnknownTable(name.to_string()))?;
        let select = metadata.select(self.scope);
        self.push(&format!("({select})"));
        // Columns can be called by the table's name, as without the subquery.
        self.metadata_alias = Some(table.value.clone());
        Ok(())
    }

    fn view(&mut self, view: View) {
        let database = self.scope.database.clone();
        self.push(&format!("`{database}`.`{}`", view.name));
    }

    fn table_function(&mut self, name: &ObjectName, args: &TableFunctionArgs) -> Result<(), Refusal> {
        let TableFunctionArgs { args, settings } = args;
        if settings.is_some() {
            return Err(Refusal::not_allowed("SETTINGS of a table function"));
        }
        let words = words(name)?;
        let view = match words.as_slice() {
            [table] => self.scope.view(None, &table.value),
            [database, table] => self.scope.view(Some(&database.value), &table.value),
            _ => None,
        };
        if let Some(view) = view {
            self.view(view);
            self.push("(");
            self.list(args, |writer, arg| writer.view_argument(view, arg))?;
            self.push(")");
            return Ok(());
        }
        let [function] = words.as_slice() else { return Err(Refusal::Function(name.to_string())) };
        if !TABLE_FUNCTIONS.contains(&&*function.value.to_ascii_lowercase()) {
            return Err(Refusal::Function(function.value.clone()));
        }
        self.push(&format!("{}(", function.value));
        self.list(args, Self::argument)?;
        self.push(")");
        Ok(())
    }

    /// `name = value`.
    fn view_argument(&mut self, view: View, arg: &FunctionArg) -> Result<(), Refusal> {
        let (name, value) = match arg {
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), operator: _ } => (name, value),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::BinaryOp { left, op: BinaryOperator::Eq, right })) => {
                match &**left {
                    Expr::Identifier(name) => (name, &**right),
                    _ => return Err(argument_expected(view)),
                }
            }
            _ => return Err(argument_expected(view)),
        };
        let name = view.parameters.iter().find(|parameter| **parameter == name.value);
        let name = name.ok_or_else(|| argument_expected(view))?;
        self.push(&format!("{name} = "));
        self.expr(value)
    }

    fn alias(&mut self, alias: Option<&TableAlias>) -> Result<(), Refusal> {
        let of_metadata = self.metadata_alias.take();
        let Some(TableAlias { explicit: _, name, columns, at }) = alias else {
            if let Some(name) = of_metadata {
                self.push(&format!(" AS `{name}`"));
            }
            return Ok(());
        };
        if !columns.is_empty() || at.is_some() {
            return Err(Refusal::not_allowed("names of columns behind a table's"));
        }
        self.push(" AS ");
        self.identifier(name)
    }
}

fn argument_expected(view: View) -> Refusal {
    let View { name, parameters } = view;
    Refusal::Syntax(format!("{name} takes {} as name = value", parameters.join(", ")))
}

/// The words of a name.
pub(super) fn words(name: &ObjectName) -> Result<Vec<&Ident>, Refusal> {
    let words: Option<Vec<&Ident>> = name.0.iter().map(|part| part.as_ident()).collect();
    words.ok_or_else(|| Refusal::UnknownTable(name.to_string()))
}
