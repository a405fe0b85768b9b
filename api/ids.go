package api

import (
	"fmt"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// pathID reads the id of a path. What is not one cannot exist.
func pathID(prefix, s, what string) (ids.ID, error) {
	id, err := ids.Parse(prefix, s)
	if err != nil {
		return 0, problem.New(problem.NotFound, "There is no %s with this id.", what)
	}
	return id, nil
}

func badID(f *problem.Fields, path, prefix string) {
	f.Add(path, "is not an id of this kind; it begins with %s_", prefix)
}

func parseIDs(faults *problem.Fields, path, prefix string, list []string) []ids.ID {
	if len(list) == 0 {
		return nil
	}
	out := make([]ids.ID, len(list))
	for i, s := range list {
		id, err := ids.Parse(prefix, s)
		if err != nil {
			badID(faults, fmt.Sprintf("%s[%d]", path, i), prefix)
		}
		out[i] = id
	}
	return out
}

func formatIDs(prefix string, list []ids.ID) []string {
	out := make([]string, len(list))
	for i, id := range list {
		out[i] = id.Format(prefix)
	}
	return out
}

// targetID prints the id of a target, whose kind follows from the channel.
func targetID(kind channels.Kind, id ids.ID) string {
	switch {
	case id == 0:
		return ""
	case kind == channels.Webhook:
		return id.Format(ids.Endpoint)
	}
	return id.Format(ids.Device)
}
