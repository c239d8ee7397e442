//! A trace as one self-contained page.

use std::fmt::Write;

use super::{
    lines::Trace,
    show::{self, Reason},
    walk::Walk,
};

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; }
td, th { padding: .2rem .7rem .2rem 0; vertical-align: top; border-bottom: 1px solid #8884; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 13px ui-monospace, monospace; } tr.changed { background: #ffe9b077; } .dim { opacity: .65; }
summary { cursor: pointer; } details p { margin: .2rem 0 .2rem 1.2rem; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818; } tr.changed { background: #6a520044; } }
";

/// The text with all that HTML gives a meaning to written out; control characters are dropped.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The page: operators before and after, regions, steps with their reasons, and what did not fire. It loads nothing.
#[must_use]
pub fn html(trace: &Trace, title: &str) -> String {
    let title = escaped(title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    let h = &trace.header;
    let _ = writeln!(
        out,
        "<p>convc {}, <code>--fp {}</code>, profile {}, {} steps{}</p>",
        escaped(&h.convc),
        escaped(&h.fp),
        escaped(&h.profile),
        trace.steps.len(),
        h.model_sha256
            .as_ref()
            .map(|s| format!("<br><span class=dim>model SHA-256 <code>{}</code></span>", escaped(s)))
            .unwrap_or_default()
    );
    operators(trace, &mut out);
    rules(trace, &mut out);
    regions(trace, &mut out);
    steps(trace, &mut out);
    not_fired(trace, &mut out);
    out.push_str("</body>\n</html>\n");
    out
}

fn operators(trace: &Trace, out: &mut String) {
    out.push_str("<h2>Operators</h2>\n<table>\n<tr><th>operator<th class=n>before<th class=n>after\n");
    let mut all = [0, 0];
    for (name, [before, after]) in show::operators(trace) {
        all = [all[0] + before, all[1] + after];
        let class = if before == after { "" } else { " class=changed" };
        let _ = writeln!(out, "<tr{class}><td>{}<td class=n>{before}<td class=n>{after}", escaped(name));
    }
    let _ = writeln!(out, "<tr><th>all<th class=n>{}<th class=n>{}\n</table>", all[0], all[1]);
}

fn rules(trace: &Trace, out: &mut String) {
    out.push_str("<h2>Rules used</h2>\n<table>\n<tr><th class=n>times<th>rule<th>exactness<th>equation\n");
    for (name, count) in show::rule_counts(trace) {
        let (exactness, equation) = trace.rule(name).map_or(("", ""), |r| (r.exactness.as_str(), r.equation.as_str()));
        let _ = writeln!(
            out,
            "<tr><td class=n>{count}<td>{}<td>{}<td><code>{}</code>",
            escaped(name),
            escaped(exactness),
            escaped(equation)
        );
    }
    out.push_str("</table>\n");
}

fn regions(trace: &Trace, out: &mut String) {
    out.push_str(
        "<h2>Regions</h2>\n<table>\n<tr><th class=n>region<th class=n>operators<th class=n>cost before<th class=n>cost after\
         <th class=n>rounds<th class=n>e-nodes<th>stopped\n",
    );
    for r in &trace.regions {
        let class = if r.changed { " class=changed" } else { "" };
        let _ = writeln!(
            out,
            "<tr{class}><td class=n>{}<td class=n>{}<td class=n>{:.1}<td class=n>{:.1}<td class=n>{}<td class=n>{}<td>{}",
            r.region,
            r.nodes,
            r.before,
            r.after,
            r.iterations,
            r.e_nodes,
            escaped(&r.stop)
        );
    }
    out.push_str("</table>\n");
}

fn steps(trace: &Trace, out: &mut String) {
    let walk = Walk::new(trace);
    out.push_str("<h2>Steps</h2>\n");
    for s in &trace.steps {
        let Reason { equation, exactness, conditions, pays } = show::reason(trace, s);
        let _ = writeln!(
            out,
            "<details><summary>{} <code>{}</code></summary>\n<p><code>{}</code><p>{}; {}",
            s.n,
            escaped(&show::step_text(&walk, trace, s)),
            escaped(&equation),
            escaped(&exactness),
            escaped(&pays)
        );
        for (name, text) in conditions {
            let _ = writeln!(out, "<p>holds: <b>{}</b>: {}", escaped(&name), escaped(&text));
        }
        out.push_str("</details>\n");
    }
}

fn not_fired(trace: &Trace, out: &mut String) {
    let rows = show::not_fired_rows(&trace.not_fired.iter().collect::<Vec<_>>());
    if rows.is_empty() {
        return;
    }
    out.push_str("<h2>Not fired</h2>\n<table>\n<tr><th class=n>times<th>rule<th>condition<th>why not<th>at\n");
    for r in rows {
        let at: Vec<&str> = r.origins.iter().map(String::as_str).collect();
        let _ = writeln!(
            out,
            "<tr><td class=n>{}<td>{}<td>{}<td>{}<td>{}",
            r.count,
            escaped(&r.rule),
            escaped(&r.condition),
            escaped(&r.reason),
            escaped(&at.join(", "))
        );
    }
    out.push_str("</table>\n");
}
