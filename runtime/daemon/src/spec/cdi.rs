//! What a container's CDI devices need, in its configuration.

use serde_json::{Value, json};

use crate::cdi::{Edits, Hook, Mount};

/// A mount. Ids are not mapped: the files are the driver's, for everybody to read and nobody in a container to own.
pub fn mount(mount: &Mount) -> Value {
    let mut options = mount.options.clone();
    let is_bind = options.iter().any(|option| option == "bind" || option == "rbind");
    let kind = mount.kind.as_deref().filter(|kind| !matches!(*kind, "" | "none" | "bind"));
    if kind.is_none() && !is_bind {
        options.push("rbind".to_owned());
    }
    json!({"destination": mount.container_path, "type": kind.unwrap_or("none"), "source": mount.host_path, "options": options})
}

/// Hooks, network devices, and the class of service.
pub fn complete(spec: &mut Value, edits: &Edits) {
    for hook in &edits.hooks {
        let Hook { hook_name, path, args, env, timeout } = hook;
        // Without a name of its own a program is called by its path.
        let args = if args.is_empty() { std::slice::from_ref(path) } else { args };
        let mut made = json!({"path": path, "args": args, "env": env});
        if let Some(seconds) = timeout {
            made["timeout"] = json!(seconds);
        }
        match spec["hooks"][hook_name].as_array_mut() {
            Some(list) => list.push(made),
            None => spec["hooks"][hook_name] = json!([made]),
        }
    }
    for device in &edits.net_devices {
        spec["linux"]["netDevices"][&device.host_interface_name] = json!({"name": device.name});
    }
    if let Some(rdt) = &edits.intel_rdt {
        spec["linux"]["intelRdt"] = json!(rdt);
    }
}
