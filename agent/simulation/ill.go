package simulation

// Illness is what is wrong with a root.
type Illness string

// The illnesses.
const (
	Healthy      Illness = ""
	Unacceptable Illness = "has no os-release"                 // a look at it shows that systemd would not take it
	Unmergeable  Illness = "has an /etc that cannot be merged" // shows when services have stopped
	Unjoinable   Illness = "cannot be mounted"                 // likewise
	FallsBack    Illness = "is not taken by systemd"           // which runs the old root again and says nothing
	Freezes      Illness = "has no init"                       // PID 1 freezes
	Panics       Illness = "has an init that ends"             // the kernel panics
	Hangs        Illness = "has a unit that never finishes starting"
	Stops        Illness = "ends in emergency.target" // of kernels only, on the host root
	Fails        Illness = "has a unit that fails"
	NeedsFull    Illness = "needs a full reboot"
	FillsDisk    Illness = "fills the disk"
	CutsNetwork  Illness = "cuts the network"
	ReadOnly     Illness = "remounts the state read-only"
	KillsConfirm Illness = "kills confirm"
	EndsGuard    Illness = "does not let the guard live"
	HangsDisk    Illness = "makes the disk hang"
	Deafens      Illness = "makes PID 1 deaf"
	Restarts     Illness = "reboots the machine"
	Unconfigured Illness = "configures no network" // what the root before set stays in the kernel
)

// Illnesses are those that random histories draw from. Unconfigured is drawn apart.
var Illnesses = []Illness{
	Unacceptable, Unmergeable, Unjoinable, FallsBack, Freezes, Panics, Hangs, Fails, NeedsFull, FillsDisk, CutsNetwork,
	ReadOnly,
	KillsConfirm, EndsGuard, HangsDisk, Deafens, Restarts,
}

// good reports whether a root can become good all the same.
func (i Illness) good() bool { return i == Healthy || i == EndsGuard || i == NeedsFull }
