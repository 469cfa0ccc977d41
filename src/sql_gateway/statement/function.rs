//! Function calls, checked against a list of allowed functions.
//!
//! The list contains functions that compute a value from their arguments. It does not contain functions
//! that read files or dictionaries, connect to hosts, wait, throw on request, or describe the server, its
//! settings and its stored blocks.

use std::collections::HashSet;
use std::sync::LazyLock;

use sqlparser::ast::{
    DuplicateTreatment, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, NullTreatment, ObjectName, ObjectNamePart, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowSpec, WindowType,
};

use super::{Refusal, Writer, literal};

/// Functions of values, in small letters.
static SCALAR: LazyLock<HashSet<String>> = LazyLock::new(|| names(include_str!("scalar_functions.txt")));
/// Functions of many rows, likewise.
static AGGREGATE: LazyLock<HashSet<String>> = LazyLock::new(|| names(include_str!("aggregate_functions.txt")));

/// What the name of an aggregate function may end in, in small letters.
const COMBINATORS: [&str; 15] = [
    "argmax",
    "argmin",
    "array",
    "distinct",
    "foreach",
    "if",
    "map",
    "merge",
    "mergestate",
    "null",
    "ordefault",
    "ornull",
    "resample",
    "simplestate",
    "state",
];

fn names(list: &str) -> HashSet<String> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).map(str::to_ascii_lowercase).collect()
}

fn is_allowed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SCALAR.contains(&name) || is_aggregate(&name)
}

fn is_aggregate(name: &str) -> bool {
    AGGREGATE.contains(name)
        || COMBINATORS.iter().any(|combinator| name.strip_suffix(combinator).is_some_and(is_aggregate))
}

impl Writer<'_> {
    pub(super) fn function(&mut self, function: &Function) -> Result<(), Refusal> {
        let Function { name, uses_odbc_syntax, parameters, args, within_group, filter, null_treatment, over } =
            function;
        if *uses_odbc_syntax || !within_group.is_empty() {
            return Err(Refusal::not_allowed("this form of a call"));
        }
        let name = simple_name(name)?;
        if let Some(constant) = self.about_the_session(name) {
            self.push(&constant);
            return Ok(());
        }
        if !is_allowed(name) {
            return Err(Refusal::Function(name.to_owned()));
        }
        self.push(&format!("`{name}`"));
        if *parameters != FunctionArguments::None {
            self.arguments(parameters)?;
        }
        self.arguments(args)?;
        if let Some(filter) = filter {
            self.push(" FILTER (WHERE ");
            self.expr(filter)?;
            self.push(")");
        }
        if let Some(treatment) = null_treatment {
            self.push(nulls(*treatment));
        }
        match over {
            None => Ok(()),
            Some(WindowType::NamedWindow(name)) => {
                self.push(" OVER ");
                self.identifier(name)
            }
            Some(WindowType::WindowSpec(spec)) => {
                self.push(" OVER ");
                self.window(spec)
            }
        }
    }

    /// What clients ask when they connect. The answers say nothing of the machine.
    fn about_the_session(&self, function: &str) -> Option<String> {
        Some(match &*function.to_ascii_lowercase() {
            "version" | "revision" | "timezone" | "servertimezone" => {
                format!("{}()", function.to_ascii_lowercase().replace("servertimezone", "serverTimezone"))
            }
            "hostname" | "displayname" | "fqdn" => "'tallyhouse'".to_owned(),
            "currentuser" | "user" | "current_user" => literal::quoted(&self.scope.user),
            "currentdatabase" | "database" | "schema" | "current_database" => {
                literal::quoted(&self.scope.shown_database)
            }
            _ => return None,
        })
    }

    fn arguments(&mut self, arguments: &FunctionArguments) -> Result<(), Refusal> {
        match arguments {
            FunctionArguments::None => {
                self.push("()");
                Ok(())
            }
            FunctionArguments::Subquery(query) => self.subquery(query),
            FunctionArguments::List(FunctionArgumentList { duplicate_treatment, args, clauses }) => {
                self.push("(");
                if *duplicate_treatment == Some(DuplicateTreatment::Distinct) {
                    self.push("DISTINCT ");
                }
                self.list(args, Self::argument)?;
                self.push(")");
                for clause in clauses {
                    let FunctionArgumentClause::IgnoreOrRespectNulls(treatment) = clause else {
                        return Err(Refusal::not_allowed(format!("{clause} within a call")));
                    };
                    self.push(nulls(*treatment));
                }
                Ok(())
            }
        }
    }

    pub(super) fn argument(&mut self, argument: &FunctionArg) -> Result<(), Refusal> {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.expr(expr),
            FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => {
                self.push("*");
                Ok(())
            }
            other => Err(Refusal::not_allowed(format!("the argument {other}"))),
        }
    }

    pub(super) fn window(&mut self, spec: &WindowSpec) -> Result<(), Refusal> {
        let WindowSpec { window_name, partition_by, order_by, window_frame } = spec;
        self.push("(");
        if let Some(name) = window_name {
            self.identifier(name)?;
        }
        if !partition_by.is_empty() {
            self.push(" PARTITION BY ");
            self.list(partition_by, Self::expr)?;
        }
        if !order_by.is_empty() {
            self.push(" ORDER BY ");
            self.list(order_by, Self::order)?;
        }
        if let Some(WindowFrame { units, start_bound, end_bound }) = window_frame {
            self.push(match units {
                WindowFrameUnits::Rows => " ROWS ",
                WindowFrameUnits::Range => " RANGE ",
                WindowFrameUnits::Groups => " GROUPS ",
            });
            match end_bound {
                None => self.bound(start_bound)?,
                Some(end_bound) => {
                    self.push("BETWEEN ");
                    self.bound(start_bound)?;
                    self.push(" AND ");
                    self.bound(end_bound)?;
                }
            }
        }
        self.push(")");
        Ok(())
    }

    fn bound(&mut self, bound: &WindowFrameBound) -> Result<(), Refusal> {
        let (rows, behind) = match bound {
            WindowFrameBound::CurrentRow => {
                self.push("CURRENT ROW");
                return Ok(());
            }
            WindowFrameBound::Preceding(rows) => (rows, " PRECEDING"),
            WindowFrameBound::Following(rows) => (rows, " FOLLOWING"),
        };
        match rows {
            None => self.push("UNBOUNDED"),
            Some(rows) => self.expr(rows)?,
        }
        self.push(behind);
        Ok(())
    }
}

const fn nulls(treatment: NullTreatment) -> &'static str {
    match treatment {
        NullTreatment::IgnoreNulls => " IGNORE NULLS",
        NullTreatment::RespectNulls => " RESPECT NULLS",
    }
}

/// A function's name, which is one plain word.
pub(super) fn simple_name(name: &ObjectName) -> Result<&str, Refusal> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(word)]
            if word.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') =>
        {
            Ok(&word.value)
        }
        _ => Err(Refusal::Function(name.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_reach_out_wait_throw_or_tell_of_the_server_are_not_on_the_list() {
        for name in [
            "file",
            "url",
            "s3",
            "remote",
            "executable",
            "sleep",
            "sleepEachRow",
            "dictGet",
            "dictHas",
            "joinGet",
            "getSetting",
            "getServerSetting",
            "getMacro",
            "getClientHTTPHeader",
            "throwIf",
            "aggThrow",
            "aggThrowIf",
            "throwIfState",
            "addressToLine",
            "demangle",
            "logTrace",
            "filesystemAvailable",
            "serverUUID",
            "tcpPort",
            "hasColumnInTable",
            "blockNumber",
            "rowNumberInAllBlocks",
            "indexHint",
            "catboostEvaluate",
            "aiGenerate",
            "initializeAggregation",
            "formatRow",
            "evalMLMethod",
            "showCertificate",
            "partitionId",
            "queryID",
            "initialQueryID",
            "authenticatedUser",
            "currentProfiles",
            "uptime",
            "transactionID",
            "getMergeTreeSetting",
            "__getScalar",
            "_CAST",
            "nowInBlock",
            "regionToName",
            "fuzzQuery",
            "chdb",
            "encrypt",
            "flameGraph",
        ] {
            assert!(!is_allowed(name), "{name}");
        }
        for name in [
            "count",
            "countIf",
            "COUNT",
            "quantilesTDigestIfState",
            "uniqExact",
            "windowFunnel",
            "toStartOfHour",
            "JSONExtractString",
            "arrayMap",
            "if",
            "multiIf",
            "lower",
            "replaceAll",
            "dateDiff",
            "row_number",
            "tuple",
        ] {
            assert!(is_allowed(name), "{name}");
        }
    }
}
