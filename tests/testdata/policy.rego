package agent_policy

import future.keywords.if
import future.keywords.in

default AddARPNeighborsRequest := true
default CloseStdinRequest := true
default CopyFileRequest := false
default CreateContainerRequest := false
default CreateSandboxRequest := true
default DestroySandboxRequest := true
default ExecProcessRequest := false
default GetDiagnosticDataRequest := false
default GetMetricsRequest := true
default GetOOMEventRequest := true
default GuestDetailsRequest := true
default ListInterfacesRequest := true
default ListRoutesRequest := true
default ReadStreamRequest := true
default RemoveContainerRequest := true
default SetPolicyRequest := false
default SignalProcessRequest := true
default StartContainerRequest := true
default StatsContainerRequest := true
default UpdateInterfaceRequest := true
default UpdateRoutesRequest := true
default WaitProcessRequest := true
default WriteStreamRequest := false

# Containers: the pause container, and those that run what is listed, as the user that they should.
CreateContainerRequest if {
    input.OCI.Process.Args == ["/pause"]
}

CreateContainerRequest if {
    input.OCI.Process.Args in [["sleep", "1000000"], ["cat", "/mnt/file"], ["/bin/sh", "-c", "cat /mnt/*; echo the owner was here > /mnt/file; cat /mnt/file"]]
    input.OCI.Process.User.UID == 0
    is_null(input.OCI.Hooks)
}

ExecProcessRequest if {
    input.process.Args == ["echo", "granted"]
}

# Files of one volume, never links.
CopyFileRequest if {
    startswith(input.path, "/run/kata-containers/shared/containers/allowed/")
    input.file_type == "Regular"
}

# A successor that says so in its first line.
SetPolicyRequest if {
    startswith(input.policy, "# successor\npackage agent_policy\n")
}
