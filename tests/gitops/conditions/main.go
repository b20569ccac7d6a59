// Judges objects as kstatus (Flux, kubectl, Argo CD's sync) and Flux's own condition checks do: JSON objects on standard
// input, one verdict a line on standard output. Not for Argo CD's health: that is Lua.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"

	"github.com/fluxcd/pkg/runtime/conditions/check"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type object struct{ unstructured.Unstructured }

func (o *object) GetConditions() []metav1.Condition {
	var typed struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &typed); err != nil {
		log.Fatalf("%s: %v", o.GetName(), err)
	}
	return typed.Status.Conditions
}

func (o *object) DeepCopyObject() runtime.Object {
	return &object{*o.Unstructured.DeepCopy()}
}

type verdict struct {
	Kstatus string `json:"kstatus"`
	Fail    string `json:"fail"`
	Warn    string `json:"warn"`
}

func reconciling(o *object) bool {
	for _, condition := range o.GetConditions() {
		if condition.Type == "Reconciling" && condition.Status == metav1.ConditionTrue {
			return true
		}
	}
	return false
}

func judge(o *object) verdict {
	result, err := status.Compute(&o.Unstructured)
	if err != nil {
		log.Fatalf("%s: kstatus: %v", o.GetName(), err)
	}
	checker := check.NewChecker(nil, &check.Conditions{NegativePolarity: []string{"Reconciling", "Stalled"}})
	if reconciling(o) {
		checker = check.NewInProgressChecker(nil)
	}
	checker.DisableFetch = true
	fail, warn := checker.Check(context.Background(), o)
	return verdict{result.Status.String(), text(fail), text(warn)}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func main() {
	input, output := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var raw json.RawMessage
		if err := input.Decode(&raw); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		var o object
		// Not a plain map: whole numbers have to stay such.
		if err := o.UnmarshalJSON(raw); err != nil {
			log.Fatal(err)
		}
		if err := output.Encode(judge(&o)); err != nil {
			log.Fatal(err)
		}
	}
}
