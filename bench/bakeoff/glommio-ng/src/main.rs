//! One glommio release behind the shared bake-off host; never holds logic of its own.
#[path = "../../shared/host.rs"]
mod host;

fn main() {
    host::main()
}
