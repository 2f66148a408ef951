package deployments

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The kinds below are what the manifests use of Kubernetes' API: a field that is
// misspelt, or in the wrong place, is not in them.

type metadata struct {
	Name   string
	Labels map[string]string
}

type selector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

type configMap struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   metadata
	Data       map[string]string
}

type secret struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   metadata
	Type       string
	StringData map[string]string `yaml:"stringData"`
}

type disruptionBudget struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   metadata
	Spec       struct {
		MaxUnavailable int `yaml:"maxUnavailable"`
		Selector       selector
	}
}

type deployment struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   metadata
	Spec       struct {
		Replicas int
		Selector selector
		Strategy struct {
			Type          string
			RollingUpdate struct {
				MaxSurge       int `yaml:"maxSurge"`
				MaxUnavailable int `yaml:"maxUnavailable"`
			} `yaml:"rollingUpdate"`
		}
		Template struct {
			Metadata metadata
			Spec     podSpec
		}
	}
}

type podSpec struct {
	TerminationGracePeriodSeconds int   `yaml:"terminationGracePeriodSeconds"`
	AutomountServiceAccountToken  *bool `yaml:"automountServiceAccountToken"`
	EnableServiceLinks            *bool `yaml:"enableServiceLinks"`
	SecurityContext               struct {
		RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
		RunAsUser      int                   `yaml:"runAsUser"`
		RunAsGroup     int                   `yaml:"runAsGroup"`
		FSGroup        int                   `yaml:"fsGroup"`
		SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	TopologySpreadConstraints []struct {
		MaxSkew           int      `yaml:"maxSkew"`
		TopologyKey       string   `yaml:"topologyKey"`
		WhenUnsatisfiable string   `yaml:"whenUnsatisfiable"`
		LabelSelector     selector `yaml:"labelSelector"`
	} `yaml:"topologySpreadConstraints"`
	Containers []container
	Volumes    []podVolume
}

type container struct {
	Name, Image string
	Args        []string
	Env         []struct {
		Name, Value string
		ValueFrom   struct {
			SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
	Resources       struct{ Requests, Limits map[string]string }
	SecurityContext struct {
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop []string }
	} `yaml:"securityContext"`
}

type podVolume struct {
	Name      string
	ConfigMap struct{ Name string } `yaml:"configMap"`
	Secret    struct {
		SecretName  string `yaml:"secretName"`
		DefaultMode int    `yaml:"defaultMode"`
		Items       []struct{ Key, Path string }
	}
}

type manifests struct {
	config     configMap
	secret     secret
	deployment deployment
	budget     disruptionBudget
}

func readManifests(t testing.TB) manifests {
	t.Helper()
	var m manifests
	for name, v := range map[string]any{
		"configmap.yaml": &m.config, "secret.yaml.example": &m.secret, "deployment.yaml": &m.deployment, "poddisruptionbudget.yaml": &m.budget,
	} {
		decode(t, name, read(t, filepath.Join("kubernetes", name)), v)
	}
	return m
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	m := readManifests(t)
	for got, want := range map[string]string{
		m.config.APIVersion + " " + m.config.Kind:         "v1 ConfigMap",
		m.secret.APIVersion + " " + m.secret.Kind:         "v1 Secret",
		m.deployment.APIVersion + " " + m.deployment.Kind: "apps/v1 Deployment",
		m.budget.APIVersion + " " + m.budget.Kind:         "policy/v1 PodDisruptionBudget",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	labels := m.deployment.Spec.Template.Metadata.Labels
	for what, s := range map[string]selector{
		"deployment": m.deployment.Spec.Selector, "budget": m.budget.Spec.Selector,
		"spread": m.deployment.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector,
	} {
		if len(s.MatchLabels) == 0 || !maps.Equal(s.MatchLabels, labels) {
			t.Errorf("%s selects %v, but the pods are %v", what, s.MatchLabels, labels)
		}
	}
	if m.budget.Spec.MaxUnavailable != 1 || m.deployment.Spec.Replicas < 2 {
		t.Error("want two workers, of which one may be away")
	}
	m.pod(t)
}

func (m manifests) pod(t *testing.T) {
	p := m.deployment.Spec.Template.Spec
	if got := time.Duration(p.TerminationGracePeriodSeconds) * time.Second; got < drain {
		t.Errorf("a pod gets %v to stop: want %v at least", got, drain)
	}
	if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken {
		t.Error("the pod gets a token for the cluster, which it has no use for")
	}
	if p.EnableServiceLinks == nil || *p.EnableServiceLinks {
		t.Error("the pod's environment gets variables of Services")
	}
	if s := p.SecurityContext; !s.RunAsNonRoot || s.RunAsUser == 0 || s.FSGroup == 0 || s.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("security context %+v", s)
	}
	if len(p.Containers) != 1 {
		t.Fatalf("%d containers, want one", len(p.Containers))
	}
	c := p.Containers[0]
	pinned(t, c.Image)
	if s := c.SecurityContext; s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("security context %+v", s)
	}
	quantity := regexp.MustCompile(`^\d+(m|[KMG]i)?$`)
	for _, r := range []map[string]string{c.Resources.Requests, c.Resources.Limits} {
		for k, v := range r {
			if !quantity.MatchString(v) {
				t.Errorf("%s: %q is no quantity", k, v)
			}
		}
	}
	if c.Resources.Requests["memory"] == "" || c.Resources.Limits["memory"] == "" {
		t.Error("no memory is set aside, or its use has no bound")
	}
}

// testKubernetesCommand runs the worker with the manifests' arguments, environment
// and files.
func testKubernetesCommand(t *testing.T, bin string) {
	m, dir := readManifests(t), t.TempDir()
	p := m.deployment.Spec.Template.Spec
	c := p.Containers[0]
	paths := []string{} // mounted, and where it is here
	for _, v := range c.VolumeMounts {
		i := slices.IndexFunc(p.Volumes, func(pv podVolume) bool { return pv.Name == v.Name })
		if i < 0 || !v.ReadOnly {
			t.Fatalf("mount %+v: no such volume, or not read-only", v)
		}
		paths = append(paths, v.MountPath+"/", dir+"/"+v.Name+".")
		m.fill(t, p.Volumes[i], dir+"/"+v.Name+".")
	}
	here := strings.NewReplacer(paths...)
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = here.Replace(e.Value)
		if ref := e.ValueFrom.SecretKeyRef; ref.Name != "" {
			if ref.Name != m.secret.Metadata.Name || m.secret.StringData[ref.Key] == "" {
				t.Errorf("%s: no key %q in secret %q", e.Name, ref.Key, ref.Name)
			}
			env[e.Name] = m.secret.StringData[ref.Key]
		}
	}
	var args []string
	for _, a := range c.Args {
		args = append(args, here.Replace(a))
	}
	takesConfiguration(t, bin, args, env, m.secret.StringData["relay-password"])
	startsWorker(t, bin, args, env)
}

// fill writes a volume's files, their names after prefix.
func (m manifests) fill(t *testing.T, v podVolume, prefix string) {
	t.Helper()
	switch {
	case v.ConfigMap.Name == m.config.Metadata.Name:
		for name, text := range m.config.Data {
			write(t, "", prefix+name, text)
		}
	case v.Secret.SecretName == m.secret.Metadata.Name:
		if v.Secret.DefaultMode&0o007 != 0 || v.Secret.DefaultMode == 0 {
			t.Errorf("volume %s: mode %o: others can read it", v.Name, v.Secret.DefaultMode)
		}
		for _, item := range v.Secret.Items {
			if m.secret.StringData[item.Key] == "" {
				t.Errorf("volume %s: no key %q in the secret", v.Name, item.Key)
			}
			write(t, "", prefix+item.Path, m.secret.StringData[item.Key])
		}
	default:
		t.Errorf("volume %+v: from neither the ConfigMap nor the Secret", v)
	}
}
