//! Writes what the operator's chart renders to, beside each of its values files, so that a change of the chart shows in
//! review what it changes.

fn main() -> anyhow::Result<()> {
    for (values, rendered) in servicechain_e2e::charts::cases()? {
        std::fs::write(rendered, servicechain_e2e::charts::render(&values)?)?;
    }
    Ok(())
}
