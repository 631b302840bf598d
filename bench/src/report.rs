//! What a run leaves behind: the JSON that programs read, the table and the plot that people read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::plot;

/// One contender in one case, against one other.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) bench: &'static str,
    pub(crate) case: String,
    pub(crate) proxy: String,
    pub(crate) cpu_micros_per_request: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to: Option<String>,
    /// Of the ratio, else of the time: the tenth and the ninetieth percentile of the rounds.
    pub(crate) spread: [f64; 2],
    pub(crate) rounds: usize,
    pub(crate) errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_micros: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_micros: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<f64>,
}

/// Everything about one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) date: String,
    pub(crate) versions: BTreeMap<String, String>,
    /// Processes that wanted the processor when it began and when it ended: on a busy machine only ratios count.
    pub(crate) load: [String; 2],
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// `<section>.json`, `<section>.md` and `<section>.svg`.
    pub(crate) fn write_docs(&self, folder: &Path, section: &str, about: &str) -> Result<()> {
        fs::create_dir_all(folder)?;
        self.write_json(&folder.join(format!("{section}.json")))?;
        let file = folder.join(format!("{section}.md"));
        fs::write(&file, self.page(section, about))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let file = folder.join(format!("{section}.svg"));
        fs::write(&file, plot::ratios(&self.rows)).with_context(|| format!("cannot write {}", file.display()))
    }

    fn page(&self, section: &str, about: &str) -> String {
        let mut page = format!(
            "# {section}\n\nWritten by `cargo xtask bench {section}` on {}.\n\n{about}\n\n- machine: {}; load average {} at the beginning, {} at the end\n",
            self.date, self.machine, self.load[0], self.load[1]
        );
        let versions: Vec<String> = self
            .versions
            .iter()
            .map(|(program, version)| format!("{program} {version}"))
            .collect();
        let _ = writeln!(page, "- {}\n\n![ratios]({section}.svg)\n", versions.join(", "));
        page.push_str("| case | contender | µs a request | ratio | of | spread | goal | requests/s | p50 µs | p99 µs | errors |\n");
        page.push_str("| --- | --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |\n");
        for row in &self.rows {
            let _ = writeln!(
                page,
                "| {} | {} | {:.2} | {} | {} | {:.2} to {:.2} | {} | {} | {} | {} | {} |",
                row.case,
                row.proxy,
                row.cpu_micros_per_request,
                figure(row.ratio, 2),
                row.ratio_to.as_deref().unwrap_or(""),
                row.spread[0],
                row.spread[1],
                figure(row.goal, 2),
                figure(row.requests_per_second, 0),
                figure(row.p50_micros, 0),
                figure(row.p99_micros, 0),
                row.errors
            );
        }
        page
    }

    /// The results with a goal, one a line.
    pub(crate) fn verdicts(&self) -> Vec<String> {
        let with_goal = self
            .rows
            .iter()
            .filter_map(|row| Some((row, row.goal?, row.ratio?)));
        with_goal
            .map(|(row, goal, ratio)| {
                let to = row.ratio_to.as_deref().unwrap_or("");
                let errors = if row.errors > 0 {
                    format!(", no figure: {} errors", row.errors)
                } else {
                    String::new()
                };
                format!(
                    "{} {} {ratio:.2} of {to} (goal {goal:.2}){errors}",
                    row.bench, row.case
                )
            })
            .collect()
    }
}

fn figure(figure: Option<f64>, digits: usize) -> String {
    figure
        .map(|figure| format!("{figure:.digits$}"))
        .unwrap_or_default()
}
