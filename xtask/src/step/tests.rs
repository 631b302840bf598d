use super::*;

/// A workshop in a folder of its own, and a step whose script writes `VALUE` to a file.
fn workshop(name: &str) -> Workshop {
    let root = std::env::temp_dir().join(format!("xtask-step-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&root);
    Workshop::new(Cache::at(root).unwrap())
}

fn step(value: &str) -> Step {
    Step {
        name: "sample".to_owned(),
        script: "xtask/src/step/sample.sh",
        values: vec![("VALUE", value.to_owned())],
        files: vec!["result".to_owned()],
        ..Step::default()
    }
}

fn finish(workshop: &Workshop) -> Vec<bool> {
    std::fs::remove_dir_all(workshop.cache.root()).unwrap();
    workshop.reports.iter().map(|report| report.ran).collect()
}

#[test]
fn a_step_whose_result_is_there_is_skipped() {
    let mut workshop = workshop("skipped");
    let made = workshop.make(&step("one"), None).unwrap();
    assert_eq!(
        std::fs::read_to_string(made.folder.join("result")).unwrap(),
        "one\n"
    );
    workshop.make(&step("one"), None).unwrap();
    assert_eq!(finish(&workshop), [true, false]);
}

#[test]
fn another_input_makes_another_result_beside_the_first() {
    let mut workshop = workshop("beside");
    let one = workshop.make(&step("one"), None).unwrap();
    let two = workshop.make(&step("two"), None).unwrap();
    assert_ne!(one.folder, two.folder);
    workshop.make(&step("one"), None).unwrap();
    assert_eq!(finish(&workshop), [true, true, false]);
}

#[test]
fn a_file_that_was_cut_short_or_overwritten_is_made_again() {
    let mut workshop = workshop("mended");
    let result = workshop.make(&step("one"), None).unwrap().folder.join("result");
    for broken in ["", "eno\n"] {
        std::fs::write(&result, broken).unwrap();
        workshop.make(&step("one"), None).unwrap();
        assert_eq!(std::fs::read_to_string(&result).unwrap(), "one\n");
    }
    std::fs::remove_file(&result).unwrap();
    workshop.make(&step("one"), None).unwrap();
    assert_eq!(finish(&workshop), [true, true, true, true]);
}

#[test]
fn a_script_that_fails_leaves_nothing_half_made() {
    let mut workshop = workshop("failed");
    let error = workshop.make(&step("fail"), None).unwrap_err();
    assert!(
        error.to_string().starts_with("sample failed (exit status: 1)"),
        "{error}"
    );
    let left = std::fs::read_dir(workshop.cache.root().join("sample"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
    finish(&workshop);
}

#[test]
fn what_a_killed_run_left_is_removed() {
    let mut workshop = workshop("killed");
    let left = workshop.cache.root().join("sample").join(format!("{PARTIAL}-1"));
    std::fs::create_dir_all(&left).unwrap();
    workshop.make(&step("one"), None).unwrap();
    assert!(!left.exists());
    finish(&workshop);
}

#[test]
fn a_step_without_room_says_how_much_it_needs() {
    let mut workshop = workshop("room");
    let greedy = Step {
        gibibytes: 1 << 40,
        ..step("one")
    };
    let error = workshop.make(&greedy, None).unwrap_err().to_string();
    assert!(error.starts_with("sample needs 1099511627776 GiB in "), "{error}");
    finish(&workshop);
}
