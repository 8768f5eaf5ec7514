"""The pack containers: which rule refuses what, and what stays free."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.policy.shipped import said

REFUSED = {
    "container-privileged": [
        "docker run --privileged alpine",
        "docker --context x run -it --privileged=true alpine sh",
        "docker exec -u 0 --privileged c sh",
        "sudo podman run --privileged i",
        "nerdctl -n k8s.io run --privileged i",
        "docker compose exec --privileged web sh",
    ],
    "container-privileged-setting": ["lxc launch i c -c security.privileged=true", "systemd-nspawn --bind=/ -D d"],
    "container-host-mount": [
        "docker run -v /:/host alpine",
        "docker run -it -v/:/host alpine",
        "docker run --volume /etc:/e:ro alpine",
        "docker run --volume=/var/run/docker.sock:/var/run/docker.sock alpine",
        "docker container run -v /root/.ssh:/k alpine",
        "podman create -v /proc:/p alpine",
        "docker-compose run -v /:/h web",
    ],
    "container-host-bind": [
        "docker run --mount type=bind,source=/,target=/h i",
        "docker run --mount=type=bind,src=/etc,dst=/e i",
    ],
    "container-host-namespace": [
        "docker run --pid=host i",
        "docker run --network host i",
        "docker create --net=host i",
    ],
    "container-capability": [
        "docker run --cap-add ALL i",
        "docker run --cap-add=SYS_ADMIN i",
        "docker run --cap-add sys_ptrace i",
    ],
    "container-unconfined": [
        "docker run --security-opt seccomp=unconfined i",
        "docker run --security-opt=apparmor:unconfined i",
    ],
    "container-device": ["docker run --device /dev/sda i", "docker run --device=/dev/mem:/dev/mem:rw i"],
    "container-build-entitlement": ["docker buildx build --allow security.insecure ."],
    "container-plugin": ["docker plugin install x"],
    "container-other-engine": ["docker -H tcp://h:2375 ps", "docker --host ssh://h run i", "docker -c prod ps"],
    "container-other-engine-variable": ["DOCKER_HOST=tcp://h docker ps"],
    "container-volume-delete": ["docker volume rm v", "docker volume prune --force", "podman volume rm -a"],
    "container-prune": [
        "docker system prune -af",
        "docker image prune -a",
        "docker network prune",
        "podman system reset -f",
    ],
    "container-prune-stopped": ["docker container prune", "buildah prune"],
    "container-remove-force": [
        "docker rm -f c",
        "docker rm -vf c",
        "docker container rm --force c",
        "docker rmi -f i",
        "docker rmi -nf i",
        "podman rm -a",
        "crictl rmp -fa",
        "docker rm -v c",
    ],
    "container-image-remove-force": ["docker image rm -f i", "podman pod rm --all"],
    "container-all": ["docker ps -q | xargs docker kill", "docker ps -aq | xargs docker stop"],
    "compose-down-volumes": [
        "docker compose down -v",
        "docker-compose -p x down --volumes",
        "docker compose rm -sv",
        "podman-compose down -v",
    ],
    "compose-remove-force": ["docker compose rm -f"],
    "swarm-delete": ["docker stack rm s", "docker swarm leave -f", "docker secret rm s"],
    "image-push": ["docker push r/i", "podman push i", "docker --config d push r/i"],
    "image-push-by-other-words": ["docker image push i", "docker compose push", "skopeo copy a docker://b"],
    "image-build-push": ["docker buildx build --push ."],
}
FREE = [
    "docker ps -a",
    "docker run --rm -it -v ./src:/src -w /src node:20 npm test",
    "docker run -v data:/var/lib/postgresql/data postgres",
    "docker run -p 8080:80 --network web nginx",
    "docker run --privileged=false alpine",
    "docker run alpine rm -rf --privileged /x",
    "docker run alpine sh -c 'ls -v /:/host'",
    "docker run --cap-drop ALL alpine",
    "docker build -t a .",
    "docker build -f /etc/Dockerfile .",
    "docker exec -it c sh",
    "docker stop c",
    "docker rm c",
    "docker rmi i",
    "docker compose up -d",
    "docker compose down",
    "docker compose -f a.yml run --rm web pytest",
    "docker-compose logs -f",
    "docker volume ls",
    "docker builder prune -af",
    "docker system df",
    "docker pull i",
    "docker login r",
    "docker buildx build --load .",
    "echo 'docker system prune -af'",
]


_RUN = st.lists(
    st.sampled_from(["--rm", "-it", "-e A=b", "--name=x", "-w /x", "-p 1:1", "-u 0", "--entrypoint sh"]), max_size=4
)


@given(_RUN, st.sampled_from(["-v /:/h", "-v=/:/h", "--volume=/:/h", "-itv /:/h"]), _RUN)
def test_a_mount_of_the_root_is_found_among_any_options(before: list[str], mount: str, behind: list[str]) -> None:
    assert said("containers", " ".join(["docker run", *before, mount, *behind, "alpine id"])) == "container-host-mount"


@given(_RUN, st.lists(st.sampled_from(["--privileged", "-v /:/h", "--pid=host", "rm", "-f"]), max_size=3))
def test_what_stands_behind_the_image_is_the_containers_own(before: list[str], words: list[str]) -> None:
    assert said("containers", " ".join(["docker run", *before, "alpine ls", *words])) == "allow"
