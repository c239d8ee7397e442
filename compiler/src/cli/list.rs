//! `convc list`

use clap::{Args, ValueEnum};
use convc::rewrite::{rule::Rule, rules};
use serde_json::json;

use super::{
    Failure,
    say::{print, print_json},
};

/// List what this build knows
#[derive(Args)]
pub(crate) struct List {
    /// Of what
    what: What,
    /// As a Markdown table
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Operators: the ONNX names that are read, and those of the plan
    Ops,
    /// Rewrite rules
    Rules,
    /// Kinds of plan instructions
    Instructions,
}

struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

pub(crate) fn run(args: &List) -> Result<(), Failure> {
    let (name, table) = match args.what {
        What::Ops => ("ops", ops()),
        What::Rules => ("rules", rules()),
        What::Instructions => ("instructions", instructions()),
    };
    if args.json {
        let rows: Vec<serde_json::Value> = table
            .rows
            .iter()
            .map(|row| table.columns.iter().zip(row).map(|(c, v)| ((*c).to_owned(), json!(v))).collect())
            .collect();
        return print_json("list", json!({ (name): rows }));
    }
    print(&if args.markdown { markdown(&table) } else { plain(&table) })
}

fn ops() -> Table {
    let executed = convc_runtime::Op::names();
    let read = convc::ops::readable();
    let mut names: Vec<&str> = executed.iter().chain(&read).copied().collect();
    names.sort_unstable();
    names.dedup();
    let yes = |b: bool| if b { "yes" } else { "" }.to_owned();
    let rows = names.iter().map(|n| vec![(*n).to_owned(), yes(read.contains(n)), yes(executed.contains(n))]).collect();
    Table { columns: &["operator", "read from ONNX", "executed"], rows }
}

fn rules() -> Table {
    let row = |r: &&Rule| {
        let conditions: Vec<String> = r.conditions.iter().map(|c| format!("{}: {}", c.name, c.text)).collect();
        let cells =
            [r.name, r.equation, &r.exactness.to_string(), &r.types.to_string(), &conditions.join("; "), r.pays];
        cells.map(str::to_owned).to_vec()
    };
    Table {
        columns: &["rule", "equation", "exactness", "types", "conditions", "pays"],
        rows: rules::all().iter().map(row).collect(),
    }
}

fn instructions() -> Table {
    let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
    Table {
        columns: &["instruction", "meaning"],
        rows: vec![
            row("op", "an operator, by its portable implementation"),
            row("if", "one of two plans, chosen by a boolean"),
        ],
    }
}

fn markdown(table: &Table) -> String {
    let line = |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let mut text = line(&mut table.columns.iter().map(|c| (*c).to_owned()));
    text.push_str(&line(&mut table.columns.iter().map(|_| "---".to_owned())));
    for row in &table.rows {
        text.push_str(&line(&mut row.iter().map(|c| c.replace('|', "\\|"))));
    }
    text
}

/// Columns aligned with spaces.
fn plain(table: &Table) -> String {
    let width = |i: usize| {
        let cells = table.rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count());
        cells.chain([table.columns[i].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&table.columns.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>());
    for row in &table.rows {
        text.push_str(&line(row));
    }
    text
}
